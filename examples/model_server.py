"""A model in a process of its own, asked by calls: pictures in, scores out, nothing is serialised.

python examples/model_server.py [MODEL.onnx]
curl --data-binary @picture.rgb -H "Frame-Dtype: uint8" -H "Frame-Shape: 480,640,3" \
    http://127.0.0.1:8000/call/model
"""

import sys
from collections.abc import Callable

import numpy as np

import framegate

Model = Callable[[np.ndarray], np.ndarray]


def load(path: str | None) -> Model:
    """Return the ONNX model of that file, or without one the share of each colour."""
    if path is None:
        return lambda picture: picture.reshape(-1, picture.shape[-1]).mean(axis=0) / 255
    import onnxruntime  # type: ignore[import-not-found]  # only who has a model needs it

    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    return lambda picture: session.run(None, {name: picture[None].astype(np.float32)})[0][0]


def main(path: str | None) -> None:
    """Answer until Ctrl-C. Start it several times: the processes share the requests."""
    model = load(path)
    # Slots hold a 1080p picture; requests and replies lie in them.
    with framegate.Responder("model", slots=8, slot_bytes=1920 * 1080 * 3) as responder:
        print("ready", flush=True)
        for request in responder:
            with request:
                # `array` is a view of the slot that the server filled.
                request.reply(model(request.array).astype(np.float32))


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else None)
    except KeyboardInterrupt:
        pass
