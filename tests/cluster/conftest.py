"""Ray is imported by these tests' modules, so its environment comes first."""

from cluster.environment import stay_on_loopback

stay_on_loopback()
