from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from powergrid.errors import ScenarioError
from powergrid.evaluation import DayRecording, record_day
from powergrid.evaluation.replay.frames import check_film, draw_frame, write_frames


@pytest.fixture(scope="module")
def recordings() -> list[DayRecording]:
    config = {"env_name": "ieee13_mg", "step_minutes": 240, "episode_length": 3}
    return record_day(config, ["no_control", "native"], "2018-07-15")


def test_each_step_is_a_picture_and_the_film_has_all(recordings: list[DayRecording], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    film = tmp_path / "film.gif"
    files = write_frames(
        recordings, pictures=tmp_path / "png", film=film, progress=lambda done, of: seen.append((done, of))
    )
    assert [file.name for file in files] == ["0000_0000.png", "0001_0400.png", "0002_0800.png", "film.gif"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with Image.open(film) as image:
        assert image.n_frames == 3
    with Image.open(files[0]) as first, Image.open(files[2]) as last:
        assert first.size == last.size
        assert first.width > 1.5 * first.height  # two side by side
        assert (np.asarray(first) != np.asarray(last)).any()


def test_a_frame_of_one_policy_is_wider_in_detail(recordings: list[DayRecording]) -> None:
    one, both = (draw_frame(of, 0) for of in (recordings[:1], recordings))
    assert one.width < both.width < 2 * one.width


def test_a_film_that_cannot_be_made_here_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ScenarioError, match="unknown kind of film 'avi'"):
        check_film("avi")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ScenarioError, match=r"mp4 needs ffmpeg.*powergrid-dss\[film\].*or take gif"):
        check_film("mp4")


def test_a_film_as_mp4_has_a_frame_for_each_step(recordings: list[DayRecording], tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    (film,) = write_frames(recordings[:1], film=tmp_path / "film.mp4")
    n_frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(film))
    assert n_frames == 3
    assert seconds == pytest.approx(3 / 6, abs=0.01)
    frames = imageio_ffmpeg.read_frames(str(film))
    assert next(frames)["size"] == draw_frame(recordings[:1], 0).size
    frames.close()
