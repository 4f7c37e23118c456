"""A client written after Flower's PyTorch quickstart. It knows nothing of fedagg: data, model and training are its own."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

EVERYTHING: tuple[Tensor, Tensor] | None = None  # read once, as the quickstart caches its data set
TEST = 300  # the last images, which no client holds

Loader = DataLoader[tuple[Tensor, ...]]


class Net(nn.Module):
    """Two layers, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 32)
        self.dropout = nn.Dropout(0.1)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.dropout(torch.relu(self.fc1(x))))  # type: ignore[no-any-return]


def load_everything() -> tuple[Tensor, Tensor]:
    global EVERYTHING
    if EVERYTHING is None:
        digits = load_digits()
        EVERYTHING = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    return EVERYTHING


def load_data(partition_id: int, num_partitions: int, batch_size: int) -> tuple[Loader, Loader]:
    """Return this partition's training set, reshuffled every epoch, and what it holds out."""
    x, y = load_everything()
    mine = TensorDataset(x[:-TEST][partition_id::num_partitions], y[:-TEST][partition_id::num_partitions])
    train, val = random_split(mine, [0.8, 0.2], generator=torch.Generator().manual_seed(42))
    return DataLoader(train, batch_size=batch_size, shuffle=True), DataLoader(val, batch_size=batch_size)


def train_net(net: nn.Module, loader: Loader, epochs: int, lr: float) -> float:
    """Train and return the mean loss of all steps."""
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    running_loss = 0.0
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = criterion(net(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return running_loss / (epochs * len(loader))


def test_net(net: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return loss and accuracy."""
    net.eval()
    with torch.no_grad():
        outputs = net(x)
    return nn.functional.cross_entropy(outputs, y).item(), (outputs.argmax(dim=1) == y).float().mean().item()


app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train the model on local data."""
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    partition_id = context.node_config["partition-id"]
    num_partitions = context.node_config["num-partitions"]
    trainloader, _ = load_data(partition_id, num_partitions, context.run_config["batch-size"])
    train_loss = train_net(model, trainloader, context.run_config["local-epochs"], msg.content["config"]["lr"])

    seen = context.state["seen"]["rounds"] if "seen" in context.state else 0
    context.state["seen"] = MetricRecord({"rounds": seen + 1})

    metrics = {"train_loss": train_loss, "rounds_seen": seen + 1, "num-examples": len(trainloader.dataset)}
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Evaluate the model on local data."""
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    partition_id = context.node_config["partition-id"]
    num_partitions = context.node_config["num-partitions"]
    _, valloader = load_data(partition_id, num_partitions, context.run_config["batch-size"])
    x, y = valloader.dataset[:]
    eval_loss, eval_acc = test_net(model, x, y)

    metrics = {"eval_loss": eval_loss, "eval_acc": eval_acc, "num-examples": len(y)}
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)
