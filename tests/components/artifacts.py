"""Outputs of components that are called as plain functions: artifacts that are files and folders here."""

from kfp import dsl


class Artifacts(dict):
    """The outputs of components by `<step>/<output>`, below one folder."""

    def __init__(self, folder):
        super().__init__()
        self._folder = folder

    def of(self, step, **kinds):
        """Make the outputs of a step; return them by name, as the component takes them."""
        made = {name: self.artifact(kind, f"{step}/{name}") for name, kind in kinds.items()}
        self.update({f"{step}/{name}": artifact for name, artifact in made.items()})
        return made

    def artifact(self, kind, name):
        """Make one artifact, which is nobody's output."""
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        return kind(name=name.rpartition("/")[2], uri=str(self.path(name)), metadata={})

    def path(self, name):
        return self._folder / name

    def names(self, kind: type[dsl.Artifact]):
        """Return the names of the outputs of a kind."""
        return {name for name, artifact in self.items() if type(artifact) is kind}
