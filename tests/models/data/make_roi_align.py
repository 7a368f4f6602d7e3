"""Make roi_align.npz: inputs of RoIAlign with what ONNX Runtime answers.  Its README.md tells how to run this.

Not part of the tests: the project does not depend on ONNX Runtime.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

OPSET = 16
SHAPES = {"inside": (14, 14), "across": (14, 14), "outside": (5, 9), "exact": (8, 8), "thin": (7, 4)}
SIZES = {"inside": 7, "across": 5, "outside": 3, "exact": 4, "thin": 2}


def run(maps: np.ndarray, boxes: np.ndarray, size: int, ratio: int, aligned: bool) -> np.ndarray:
    """Maps (B, H, W, D), boxes as shares (B, K, 4) -> (B, K, size, size, D), by the RoiAlign operator."""
    names = {"X": maps.ndim, "rois": 2}
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * d) for n, d in names.items()]
    inputs.append(helper.make_tensor_value_info("batch", TensorProto.INT64, [None]))
    node = helper.make_node(
        "RoiAlign", ["X", "rois", "batch"], ["Y"], mode="avg", output_height=size, output_width=size,
        sampling_ratio=ratio, spatial_scale=1.0,
        coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
    )  # fmt: skip
    output = helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None] * 4)
    graph = helper.make_graph([node], "roi", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    height, width = maps.shape[1:3]
    pixels = boxes.reshape(-1, 4) * np.array([width, height, width, height], dtype=np.float32)
    index = np.repeat(np.arange(len(boxes)), boxes.shape[1])
    (out,) = session.run(None, {"X": maps.transpose(0, 3, 1, 2).copy(), "rois": pixels, "batch": index})
    return out.transpose(0, 2, 3, 1).reshape(*boxes.shape[:2], size, size, -1)


def boxes_of(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Two pictures with six boxes each, as shares of the picture."""
    corner = rng.random((2, 6, 2))
    extent = rng.random((2, 6, 2))
    if kind == "inside":
        corner, extent = corner * 0.7, extent * (1 - corner * 0.7)
    elif kind == "across":
        corner, extent = corner * 1.6 - 0.8, extent + 0.3
    elif kind == "outside":
        corner = np.where(rng.random((2, 6, 2)) < 0.5, corner - 2.2, corner + 1.1)
        corner[0, 0], extent[0, 0] = -2.5, 6.0  # around everything
        corner[1, 0], extent[1, 0] = -1.5, 2.2  # from far outside to the inside
    elif kind == "exact":  # every sample is a binary fraction: some lie just on -1, 0, the last cell and the end
        corner, extent = rng.integers(-16, 24, (2, 6, 2)) / 16, rng.integers(0, 24, (2, 6, 2)) / 16
        corner[1, 0], extent[1, 0] = -0.125, 1.25
    else:
        extent *= np.array([0.02, 0.9])
        extent[0, 0] = 0.0  # no area at all
    return np.concatenate([corner, corner + extent], axis=-1).astype(np.float32)


def main() -> None:
    rng = np.random.default_rng(0)
    found = {}
    for kind, (height, width) in SHAPES.items():
        found[f"{kind}/maps"] = maps = rng.standard_normal((2, height, width, 2)).astype(np.float32)
        found[f"{kind}/boxes"] = boxes = boxes_of(kind, rng)
        for ratio in (0, 2, 3) if kind != "inside" else (0, 2):
            for aligned in (True, False):
                name = f"{kind}/{SIZES[kind]}/{ratio}/{'aligned' if aligned else 'shifted'}"
                found[name] = run(maps, boxes, SIZES[kind], ratio, aligned)
    np.savez_compressed(Path(__file__).with_name("roi_align.npz"), **found)
    print(onnx.__version__, onnxruntime.__version__, np.__version__)


if __name__ == "__main__":
    main()
