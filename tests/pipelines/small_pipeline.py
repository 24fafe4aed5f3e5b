"""A pipeline with a parameter of every type, a condition and an exit handler. It is compiled, never run."""

from typing import Dict, List  # noqa: UP035 - kfp reads the annotations

from kfp import dsl, kubernetes


@dsl.component(base_image="registry.example/step:1")
def step(data: str) -> str:
    return data


@dsl.component(base_image="registry.example/step:1")
def notify(status: dsl.PipelineTaskFinalStatus):
    print(status.state)


@dsl.pipeline(name="small-training", description="Small.")
def small(
    data: str = "sample",
    name: str = "school",
    seed: int = 0,
    accuracy: float = 0.85,
    recall: float = 0.0,
    augment: bool = True,
    accept: List[str] = [],  # noqa: B006, UP006 - kfp copies the default
    labels: Dict[str, str] = {},  # noqa: B006, UP006 - kfp copies the default
):
    """Do nothing.

    Args:
        data: Where the <class>/* | folders are.
        name: What the model is called.
        seed: Seed.
        accuracy: Lowest accuracy.
        recall: Lowest recall.
        augment: Whether to turn and flip.
        accept: What is let through.
        labels: Labels.
    """
    ending = notify()
    kubernetes.use_secret_as_env(ending, "a-secret", {"url": "URL"}, optional=True)
    with dsl.ExitHandler(ending, name="run"):
        made = step(data=data)
        trained = step(data=made.output).set_display_name("Train it")
        with dsl.If(trained.output != "none", name="it-passed"):
            step(data=trained.output).set_display_name("Deploy it")
