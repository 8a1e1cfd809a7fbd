"""Runs a model on images or several inputs: an engine on a GPU, or an ONNX file in ONNX Runtime.

May import ``builder``, ``graph``, ``machine`` and below.
"""

from deploy.sessions.cuda_graph import CudaGraph
from deploy.sessions.engine import Engine
from deploy.sessions.inference_stream import InferenceStream
from deploy.sessions.onnx_session import OnnxSession
from deploy.sessions.session import Session, check_inputs
from deploy.sessions.tensorrt_session import TensorRTSession

__all__ = ["CudaGraph", "Engine", "InferenceStream", "OnnxSession", "Session", "TensorRTSession", "check_inputs"]
