"""Microsoft Olive: its workflow with the pass OnnxStaticQuantization as it is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"  # read at import

from olive import run as run_workflow
from olive.data.registry import Registry
from runner import Inputs, run


def static_default(inputs: Inputs, out: Path) -> None:
    """One workflow of one pass."""

    class Samples:
        """The calibration samples as Olive's data containers want them."""

        def __len__(self) -> int:
            return len(inputs.array("calibration_x"))

        def __getitem__(self, index: int) -> tuple[dict[str, Any], int]:
            if index >= len(self):
                raise IndexError(index)
            return {inputs.input_name: inputs.array("calibration_x")[index].copy()}, 0

    Registry.register_dataset("w1_calibration")(lambda **_: Samples())
    config = {
        "input_model": {"type": "ONNXModel", "model_path": str(inputs.teacher)},
        "data_configs": [
            {
                "name": "calibration",
                "type": "DataContainer",
                "load_dataset_config": {"type": "w1_calibration"},
                "dataloader_config": {"batch_size": 1},
            }
        ],
        "passes": {"static": {"type": "OnnxStaticQuantization", "data_config": "calibration"}},
        "output_dir": str(out / "olive"),
        "cache_dir": str(out / "cache"),
    }
    run_workflow(config)
    # Olive says nothing by its exit status when a pass failed; without a file this raises.
    made = next((out / "olive").rglob("*.onnx"))
    for path in made.parent.glob(f"{made.stem}.onnx*"):
        shutil.copyfile(path, out / f"model{path.name[len(made.stem) :]}")
    for folder in ("olive", "cache"):
        shutil.rmtree(out / folder, ignore_errors=True)


if __name__ == "__main__":
    run({"static_default": static_default})
