"""The first screen of the report: the result in sentences and tiles, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

from sparsegpt_cli.messages import command_line
from sparsegpt_cli.report.accuracy import NOT_MEASURED, accuracy_sentence
from sparsegpt_cli.report.formats import count, fixed, percent, significant
from sparsegpt_cli.report.run_files import PrunedFile
from sparsegpt_cli.report.view import View

__all__ = ["Step", "Summary"]

_PRECISIONS = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}


@dataclass(frozen=True)
class Step:
    """Something to do next."""

    reason: str
    """Why, or where."""
    command: str
    """The command, for the run's folder."""


class Summary:
    """The first screen.

    Args:
        view: The run.
    """

    def __init__(self, view: View) -> None:
        self._view, self._prune, self._benchmark, self._files = view, view.prune, view.benchmark, view.files
        self._dense = view.reference or NOT_MEASURED
        self._result = view.result or NOT_MEASURED

    @property
    def title(self) -> str:
        """The model and its weights."""
        model = self._prune.child("model")
        if not model:
            return "Model"
        weights = model.text("weights")
        return f"{model.text('spec') or 'Model'}, {f'weights {weights}' if weights else 'random weights'}"

    @property
    def verdict(self) -> list[str]:
        """The run in a few sentences. Engines that were timed come first."""
        pattern, total = self._prune.child("settings").text("pattern"), len(self._view.layers)
        state = pattern if ":" in pattern else "pruned"
        found = [f"{verdict}."] if (verdict := self._prune.child("gains").text("verdict")) else []
        found += [f"{len(self._view.pruned)} of {total} {'layer is' if total == 1 else 'layers are'} {state}."]
        found += [sentence for sentence in (self._quality, self._target) if sentence]
        return [self._benchmark.verdict, *found] if self._benchmark.on_engines else [*found, self._speed]

    @property
    def _quality(self) -> str:
        errors = self.output_errors
        if not errors:
            sentence = accuracy_sentence(self._dense, self._result)
            return f"After fine-tuning: {sentence}" if self._files.finetuned else sentence
        named = ", ".join(f"{name} {significant(error, 2)}" for name, error in errors)
        images = count(self._prune.child("outputs").number("samples"))
        return f"Relative error of each output against the dense network, on {images} images: {named}."

    @property
    def output_errors(self) -> list[tuple[str, float | None]]:
        """The relative error of each output; empty for classifiers."""
        measured, file = self._prune.child("outputs").child("relative_errors"), self._files.deployed
        errors = measured.child("sparse.int8" if file and file.precision == "int8" else "sparse")
        return [(name, errors.number(name)) for name in errors]

    @property
    def _target(self) -> str:
        """Whether the evaluation meets the target of ``--max-disagreement``."""
        target = self._prune.child("settings").number("max_disagreement")
        found = self._result.accuracy.number("disagreement")
        if target is None:
            return ""
        text = f"The target was that at most {fixed(target, 2, '%')} of held-out images change class"
        if found is None:
            return f"{text}; it has not been evaluated."
        return f"{text}; on the evaluation images it is {'met' if found <= target else 'missed'}."

    @property
    def _speed(self) -> str:
        bound = self._view.prediction.number("bound")
        text = "Speed on a GPU has not been measured"
        return f"{text}; the estimate is {fixed(bound)}× the dense network's." if bound is not None else f"{text}."

    @property
    def tiles(self) -> list[tuple[str, str]]:
        """(Label, value) pairs."""
        found = [("layers pruned", f"{len(self._view.pruned)} of {len(self._view.layers)}")]
        if (zeros := self._view.zeros) is not None:
            found.append(("of the weights are zero", percent(zeros)))
        before, after = self._dense.accuracy.number("top1"), self._result.accuracy.number("top1")
        if before is not None and after is not None:
            found.append(("top-1 accuracy", f"{fixed(before)} → {fixed(after, 2, '%')}"))
        if (changed := self._result.accuracy.number("disagreement")) is not None:
            found.append(("of the images change class", fixed(changed, 2, "%")))
        if errors := [(error, name) for name, error in self.output_errors if error is not None]:
            worst, name = max(errors)
            found.append((f"relative error of {name}, the largest", significant(worst, 2)))
        found += self.figures
        gain, bound = self._benchmark.gain, self._view.prediction.number("bound")
        if gain:
            low, high = fixed(gain.number("low")), fixed(gain.number("high"))
            label = f"as fast as the dense engine (95 % interval{self._benchmark.of_build} {low} … {high})"
            found.append((label, f"{fixed(gain.number('ratio'))}×"))
        elif bound is not None:
            found.append(("as fast as the dense network, estimated", f"{fixed(bound)}×"))
        if file := self._files.deployed:
            found.append((f"is the file to deploy, in {_PRECISIONS[file.precision]}", file.name))
        return found

    @property
    def figures(self) -> list[tuple[str, str]]:
        """A tile for each figure of ``--metric``: dense, and the file to deploy; none if that is fine-tuned."""
        file, metrics = self._files.deployed, self._prune.child("metrics")
        if file is None or file.finetuned:
            return []
        version = {"fp32": "sparse"}.get(file.precision, f"sparse.{file.precision}")
        found = []
        for name in metrics:
            versions = metrics.child(name).child("versions")
            before, after = (versions.child(key).number("value") for key in ("dense", version))
            if before is not None and after is not None:
                found.append((name, f"{significant(before, 4)} → {significant(after, 4)}"))
        return found

    @property
    def build_line(self) -> str:
        """The command that builds the engine of the file to deploy."""
        return command_line("build", self._file.name)

    @property
    def benchmark_line(self) -> str:
        """The command that compares the file to deploy with the dense one."""
        data = self._prune.child("data")
        named = {"--data": data.text("spec"), "--eval-data": data.text("evaluation")}
        given = [text for flag, spec in named.items() if spec for text in (flag, spec)]
        return command_line("benchmark", self._file.dense, self._file.name, *given, "--out", "benchmark.json")

    @property
    def _file(self) -> PrunedFile:
        """The file to deploy; the FP16 one where the run has none."""
        return self._files.deployed or PrunedFile("sparse.fp16.onnx", "fp16", "")

    @property
    def steps(self) -> list[Step]:
        """What to do next, in the run's folder."""
        file, weights = self._files.deployed, self._files.finetuned
        if (file is None and weights) or (file and file.precision == "fp32"):
            weights = weights or "sparse.safetensors"
            out = f"{weights.removesuffix('.safetensors')}.fp16.onnx"
            return [Step("Export FP16, since there are no sparse kernels for FP32:", _export_line(weights, out))]
        if file is None:
            return []
        steps = []
        if not self._benchmark.on_engines:
            steps.append(Step("Measure the gain, on a machine with a GPU and TensorRT:", self.benchmark_line))
        elif any(engine.child("onnx").text("sha256") == file.sha256 for _, engine in self._view.engines):
            steps.append(
                Step("Deploy, for example in Triton:", command_line("triton-export", file.name, "--out", "triton"))
            )
        else:
            steps.append(Step("Build the engine:", self.build_line))
        if (self._result.difference.number("high") or 0.0) < 0 and not file.finetuned:
            line = command_line("finetune", "--weights", "sparse.safetensors", "--out", "finetuned.safetensors")
            steps.append(Step("Recover the lost accuracy:", line))
        return steps


def _export_line(weights: str, out: str) -> str:
    return command_line("export", "--weights", weights, "--precision", "fp16", "--out", out)
