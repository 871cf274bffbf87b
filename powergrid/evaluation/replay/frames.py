"""A recorded day as pictures: one of each step, and a film of them; drawn as a feeder's diagram is."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from powergrid.errors import PowerGridError, ScenarioError, describe_unknown
from powergrid.evaluation.drawing import draw_network
from powergrid.evaluation.replay.recording import DayRecording
from powergrid.files import make_folder, replacing, telling

if TYPE_CHECKING:
    from PIL.Image import Image

FILMS = ("gif", "mp4")
_DPI = {1: 100, 2: 75, 3: 60}
_STEPS_PER_SECOND = 6


def check_film(kind: str) -> None:
    """Refuse a kind of film that cannot be made here.

    Raises:
        ScenarioError: there is no such kind, or what it takes is not installed.
    """
    if kind not in FILMS:
        raise ScenarioError("film", [describe_unknown("kind of film", kind, FILMS)])
    if kind == "mp4" and _find_ffmpeg() is None:
        remedy = 'pip install "powergrid-dss[film]" brings it, or take gif'
        raise ScenarioError("film", [f"mp4 needs ffmpeg, which is not installed here; {remedy}"])


def _find_ffmpeg() -> str | None:
    """Return the program that writes MP4: the machine's own, else that of imageio-ffmpeg, else None."""
    if own := shutil.which("ffmpeg"):
        return own
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return str(get_ffmpeg_exe())
    except (ImportError, RuntimeError):  # RuntimeError: a platform for which it has none
        return None


def write_frames(
    recordings: Sequence[DayRecording],
    *,
    pictures: Path | None = None,
    film: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Draw every step of a day, all policies side by side, and return the files.

    Args:
        recordings: The day by policy.
        pictures: Folder of a PNG for each step, named by its number and time; it is made.
        film: File of the film, ``.gif`` or ``.mp4``.
        progress: Called with the number of steps drawn and to draw.

    Raises:
        ScenarioError: the film is of no kind that can be made here.
        PowerGridError: a file cannot be written.
    """
    if film is not None:
        check_film(film.suffix.lower().removeprefix("."))
        make_folder(film.parent)
    if pictures is not None:
        make_folder(pictures)
    longest = max(recordings, key=lambda each: each.n_steps)
    files: list[Path] = []
    frames: list[Image] = []
    for step in range(longest.n_steps):
        frame = draw_frame(recordings, step)
        if pictures is not None:
            file = pictures / f"{step:04d}_{str(longest.times[step])[11:16].replace(':', '')}.png"
            with telling(file), replacing(file) as temporary:
                frame.save(temporary, format="PNG", optimize=True)
            files.append(file)
        if film is not None:
            frames.append(frame)
        if progress is not None:
            progress(step + 1, longest.n_steps)
    if film is not None:
        write = _write_gif if film.suffix.lower() == ".gif" else _write_mp4
        with telling(film), replacing(film) as temporary:
            write(frames, temporary)
        files.append(film)
    return files


def draw_frame(recordings: Sequence[DayRecording], step: int) -> Image:
    """Draw a step as every policy has it, side by side; a day that ended early stays at its last step."""
    from PIL import Image as Images

    own = []
    for recording in recordings:
        content = io.BytesIO()
        figure = draw_network(recording.look(min(step, recording.n_steps - 1)))
        figure.savefig(content, format="png", dpi=_DPI.get(len(recordings), 50), metadata={"Software": None})
        own.append(Images.open(content).convert("RGB"))
    # even numbers of dots, as films have them
    width, height = sum(each.width for each in own), max(each.height for each in own)
    frame = Images.new("RGB", (width + width % 2, height + height % 2), "white")
    left = 0
    for each in own:
        frame.paste(each, (left, 0))
        left += each.width
    return frame


def _write_gif(frames: Sequence[Image], file: Path) -> None:
    from PIL.Image import Dither

    # one palette for all: with one each, what stays the same would flicker
    palette = frames[len(frames) // 2].quantize(colors=128)
    drawn = [frame.quantize(palette=palette, dither=Dither.NONE) for frame in frames]
    pause = 1000 // _STEPS_PER_SECOND
    drawn[0].save(file, format="GIF", save_all=True, append_images=drawn[1:], duration=pause, loop=0, optimize=True)


def _write_mp4(frames: Sequence[Image], file: Path) -> None:
    source = ["-f", "image2pipe", "-framerate", str(_STEPS_PER_SECOND), "-i", "-"]
    target = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-f", "mp4", str(file)]
    command = [_find_ffmpeg() or "ffmpeg", "-loglevel", "error", "-y", *source, *target]
    done = subprocess.run(command, input=b"".join(_as_png(frames)), capture_output=True, check=False)
    if done.returncode:
        raise PowerGridError(f"ffmpeg: {done.stderr.decode(errors='replace').strip()[-300:]}")


def _as_png(frames: Sequence[Image]) -> Iterator[bytes]:
    for frame in frames:
        content = io.BytesIO()
        frame.save(content, format="PNG")
        yield content.getvalue()
