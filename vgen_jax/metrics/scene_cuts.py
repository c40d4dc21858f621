"""SCuts: abrupt changes of scene, counted by PySceneDetect's AdaptiveDetector with its default parameters.

A frame is a cut where the mean change of hue, saturation and brightness to the frame before it is at least 15 (of 255)
and 3 times as large as on average over the 2 frames before and after it, and no cut lies within 15 frames before it.
That is what StreamingT2V counts, whose numbers SlowFast-VGen §4.1 compares with.

PySceneDetect's command line reduces a video whose longer side is above 256 pixels to 256, by linear interpolation, and
leaves smaller ones as they are. Frames here never pass through a file: smaller ones are enlarged by the largest whole
factor that stays within 256 pixels, each pixel repeated, so that the rule does not apply to them, and larger ones are
reduced just as the command line does it. The changes are means over pixels, which whole enlargement leaves as they are:
a count depends on what is seen and not on the factor. Short or small videos rarely register cuts: say length and
resolution beside the number.
"""

from typing import Any

import numpy as np

from vgen_jax.types import VgenError

EFFECTIVE = 256  # pixels of the longer side that PySceneDetect looks at


def scene_cuts(video_THWC: np.ndarray, fps: float) -> int:
    """The number of cuts of a video.

    Args:
        video_THWC: uint8 RGB frames.
        fps: frames per second; the detector counts in frames, so that it does not change the number.

    Raises:
        VgenError: frames of another type, or PySceneDetect is not installed.
    """
    if video_THWC.dtype != np.uint8 or video_THWC.ndim != 4 or video_THWC.shape[-1] != 3:
        raise VgenError(f"scuts: needs uint8 frames (T, H, W, 3), got {video_THWC.dtype} of shape {video_THWC.shape}")
    try:
        import cv2
        from scenedetect import AdaptiveDetector, FrameTimecode
    except ImportError as error:
        raise VgenError(f"scuts needs PySceneDetect ({error}): pip install 'vgen_jax[eval]'") from error
    detector, cuts, last = AdaptiveDetector(), [], FrameTimecode(0, fps)
    for number, frame_HWC in enumerate(video_THWC):
        last = FrameTimecode(number, fps)
        cuts += detector.process_frame(last, cv2.cvtColor(_sized(cv2, frame_HWC), cv2.COLOR_RGB2BGR))
    return len({cut.frame_num for cut in [*cuts, *detector.post_process(last)]})


def _sized(cv2: Any, frame_HWC: np.ndarray) -> np.ndarray:
    """The frame at the size at which PySceneDetect looks at it."""
    height, width = frame_HWC.shape[:2]
    factor = EFFECTIVE // max(height, width)
    if factor:
        return frame_HWC.repeat(factor, axis=0).repeat(factor, axis=1)
    shrink = max(height, width) / EFFECTIVE
    size = max(1, round(width / shrink)), max(1, round(height / shrink))
    return cv2.resize(frame_HWC, size, interpolation=cv2.INTER_LINEAR)
