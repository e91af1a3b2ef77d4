import logging

import numpy as np
import pytest
import torch

from models.checkpoint import (
    checkpoint_path,
    checkpoints,
    export_weights,
    latest_checkpoint,
    load_checkpoint,
    load_weights,
    random_state,
    save_checkpoint,
    set_random_state,
)

torch.set_num_threads(1)


def make_state(value=1.0):
    return {"module": {"weight": torch.full((50, 50), value)}, "step": 7, "settings": {"name": "demo", "epochs": 2}}


def test_state_comes_back_and_only_the_newest_stay(tmp_path):
    for step in (3, 12, 100_000_000 - 1):
        save_checkpoint(tmp_path, make_state(float(step)), step=step, keep=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-99999999.pt", "checkpoint-00000012.pt"]
    path, state = latest_checkpoint(tmp_path)
    assert path.name == "checkpoint-99999999.pt"
    assert torch.equal(state["module"]["weight"], torch.full((50, 50), 99999999.0))
    assert state["settings"] == {"name": "demo", "epochs": 2}
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []
    with pytest.raises(ValueError, match="keep is 0"):
        save_checkpoint(tmp_path, make_state(), step=1, keep=0)


def test_what_a_killed_writer_left_is_ignored_and_removed(tmp_path):
    (tmp_path / ".checkpoint-00000009.pt.abc.part").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, make_state(), step=10)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-00000010.pt"]


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, damage):
    path = save_checkpoint(tmp_path, make_state(), step=1)
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        where = data.index(torch.ones(8).numpy().tobytes())
        data[where + 5] ^= 1
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"hello\n"}.get(damage, data))
    with pytest.raises(ValueError, match=rf"checkpoint {path} is (cut short or )?damaged.*resume from an older one"):
        load_checkpoint(path)


def test_the_newest_whole_one_is_found(tmp_path, caplog):
    save_checkpoint(tmp_path, make_state(1.0), step=1)
    path = save_checkpoint(tmp_path, make_state(2.0), step=2)
    path.write_bytes(path.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        found, state = latest_checkpoint(tmp_path)
    assert found == checkpoint_path(tmp_path, step=1)
    assert state["module"]["weight"][0, 0] == 1
    assert str(path) in caplog.text
    found.write_bytes(b"")
    with pytest.raises(ValueError, match=f"none of the 2 checkpoints in {tmp_path} is whole"):
        latest_checkpoint(tmp_path)


def test_other_files_are_refused(tmp_path):
    torch.save({"weights": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other.pt is not one of this program's"):
        load_checkpoint(tmp_path / "other.pt")


def test_pickled_code_is_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"format": 1, "trap": Trap()}, tmp_path / "trap.pt")
    for load in (load_checkpoint, load_weights):
        with pytest.raises(ValueError, match=r"trap.pt"):
            load(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_random_states_come_back_through_a_file(tmp_path):
    torch.manual_seed(3)
    np.random.seed(3)
    np.random.normal()  # leaves a second value waiting
    path = save_checkpoint(tmp_path, {"random": random_state()}, step=0)
    expected = torch.rand(3), np.random.normal(size=3)
    torch.manual_seed(4)
    np.random.seed(4)
    set_random_state(load_checkpoint(path)["random"])
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.normal(size=3), expected[1])


def test_weights_travel_as_safetensors(tmp_path):
    state = {"conv.weight": torch.randn(2, 3).t(), "bn.num_batches_tracked": torch.tensor(4)}
    export_weights(tmp_path / "weights.safetensors", state, metadata={"backbone": "r3d18"})
    loaded = load_weights(tmp_path / "weights.safetensors")
    assert set(loaded) == set(state)
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    save_checkpoint(tmp_path, {"module": state}, step=1)
    assert set(load_weights(tmp_path / "checkpoint-00000001.pt")) == set(state)
    torch.save({"state_dict": state, "arch": "resnet-18"}, tmp_path / "hara.pth")
    assert set(load_weights(tmp_path / "hara.pth")) == set(state)
    (tmp_path / "bad.safetensors").write_bytes(b"\x00" * 4)
    with pytest.raises(ValueError, match=r"bad.safetensors cannot be read"):
        load_weights(tmp_path / "bad.safetensors")
    torch.save({"arch": "x"}, tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"none.pth holds no tensors"):
        load_weights(tmp_path / "none.pth")
