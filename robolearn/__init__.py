"""robolearn: record demonstrations, train policies, evaluate them in simulation, deploy them on real arms."""

__version__ = "0.1.0"
