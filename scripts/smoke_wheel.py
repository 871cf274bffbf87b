"""Build the wheel, install it alone into a new environment and use it from an empty folder.

Libraries come from the environment that runs this script, so nothing is downloaded. The wheel is built from the source
distribution, so that both are known to be complete.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

EVERY_SCENARIO = """
import sys
from pathlib import Path

import powergrid

assert Path(powergrid.__file__).is_relative_to(sys.prefix), powergrid.__file__
names = [str(name) for name in powergrid.list_scenarios()]
assert "ieee13_mg" in names, names
for name in names:
    env = powergrid.make(name)
    observations, infos = env.reset(seed=0)
    actions = {agent: env.action_space(agent).sample() for agent in env.agents}
    observations, rewards, terminated, truncated, infos = env.step(actions)
    assert set(observations) == set(actions), name
    env.close()
    print(f"{name}: {len(actions)} agents")
"""


def run(*command: str | Path, cwd: Path) -> None:
    """Run a command, shown first; a failure ends the script."""
    print("$", *(str(part) if "\n" not in str(part) else "..." for part in command), flush=True)
    subprocess.run([str(part) for part in command], cwd=cwd, check=True, stdin=subprocess.DEVNULL)


def main() -> None:
    """Build, install and use the wheel in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="wheel.") as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ROOT, cwd=folder)
        (wheel,) = (folder / "dist").glob("*.whl")

        venv.create(folder / "venv", symlinks=True)
        scripts = folder / "venv" / "bin"
        python = scripts / "python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = folder / "venv" / "lib" / version / "site-packages"
        # A line of a .pth file adds a folder without reading that folder's own .pth files: the libraries are found,
        # the editable installation of this checkout is not.
        (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=folder)

        empty = folder / "empty"
        empty.mkdir()
        powergrid = scripts / "powergrid"
        run(powergrid, "--version", cwd=empty)
        run(python, "-c", EVERY_SCENARIO, cwd=empty)
        run(powergrid, "list", cwd=empty)
        run(powergrid, "replay", "no_control", "ieee13_mg", "--day", "0", cwd=empty)
        run(powergrid, "train", "ieee13_mg", "--iterations", "1", cwd=empty)


if __name__ == "__main__":
    main()
