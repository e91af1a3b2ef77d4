from pathlib import Path

import av
import numpy as np

from pipeline.sandbox.sheet import write_sheet


def test_a_sheet_has_a_row_for_each_action(tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.png", actions=("swing", "rowing", "biking"), columns=4)
    with av.open(str(tmp_path / "sheet.png")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    height, width, _ = picture.shape
    assert width > height
    frames = [picture[height * row // 3 : height * (row + 1) // 3, width // 4 :] for row in range(3)]
    assert all(np.std(frame) > 5 for frame in frames)
    assert not np.array_equal(frames[0][:100], frames[1][:100])
