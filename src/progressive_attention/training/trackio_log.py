"""What a training tells its watcher, as curves for trackio: on this machine, without an account."""

from collections.abc import Mapping
from typing import Any

from progressive_attention.training.loop import Progress
from progressive_attention.training.step_log import StepLog


def trackio_package() -> Any:
    """The package trackio; raises ValueError where it is missing."""
    try:
        import trackio
    except ImportError as error:
        raise ValueError("trackio is not installed; pip install 'progressive-attention[trackio]'") from error
    return trackio


class TrackioLog(StepLog):
    """Points of the run ``name`` in the ``project``, below TRACKIO_DIR; raises ValueError where trackio is missing."""

    def __init__(self, project: str, name: str) -> None:
        super().__init__()
        self.project, self.name, self.trackio = project, name, trackio_package()
        self.run: Any = None

    def begin(self, step: int) -> int:
        from trackio.sqlite_storage import SQLiteStorage

        if step == 1:
            SQLiteStorage.delete_run(self.project, self.name)
        last = SQLiteStorage.get_max_step_for_run(self.project, self.name)
        own = {"auto_log_gpu": False, "auto_log_cpu": False, "embed": False}
        self.run = self.trackio.init(project=self.project, name=self.name, resume="allow", **own)
        return -1 if last is None else last

    def write(self, points: Mapping[str, float], progress: Progress) -> None:
        self.run.log(dict(points), step=progress.step)

    def close(self) -> None:
        if self.run is not None:
            self.run.finish()
