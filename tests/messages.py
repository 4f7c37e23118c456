"""Messages made by hand."""

import torch
from flwr.app import Message, MetricRecord, RecordDict
from torch import Tensor, nn

from fedagg.params import Layout, ModelState


def vector_model(d: int) -> nn.Module:
    """A model that is nothing but a vector of ``d`` parameters, all zero."""
    module = nn.Module()
    module.register_parameter("theta", nn.Parameter(torch.zeros(d)))
    return module


def reply(message: Message, params: Tensor, **metrics: float) -> Message:
    """Answer a message with these parameters, as a client would."""
    layout = Layout.of_model(vector_model(len(params)))
    empty = layout.empty()
    arrays = layout.record(ModelState(params, empty.float_buffers, empty.int_buffers))
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1, **metrics})}), reply_to=message)
