"""The parts around TRL's trainers that all methods share: settings, weights, LoRA, checkpoints, metrics, saving.

Imports torch: import it inside a method's `train`. In distributed training every process calls every function.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from cai.backends.local.weights import load_mistake, refuse_code, refuse_rewards
from cai.core.errors import CaiError, Mistake
from cai.core.plugin_types import Job
from cai.core.plugins import suggest
from cai.core.types import JsonObject
from cai.runs.files import replaced_folder
from cai.train.trl.checkpoints import last_checkpoint, seal
from cai.train.trl.interrupt import Stop, interruptible
from cai.train.trl.options import TrainingOptions

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")  # the only switch that hides the bar of TRL's log-probability precomputation

import torch
from transformers import AutoModelForCausalLM, PrinterCallback, TrainerCallback, TrainerState

if TYPE_CHECKING:
    from transformers import (
        PreTrainedModel,
        PreTrainedTokenizerBase,
        Trainer,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )

ADAPTER = "adapter_config.json"
STATE = "trainer_state.json"


# --- Settings ---------------------------------------------------------------------------------------------------------


def on_cpu(options: TrainingOptions) -> bool:
    """Whether to train on the CPU. Raises Mistake where a GPU is asked for and there is none."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise Mistake("device: cuda", "there is no CUDA device here", "use device: auto")
    return options.device == "cpu" or not torch.cuda.is_available()


def dtype(options: TrainingOptions) -> torch.dtype:
    """The compute precision."""
    if options.dtype == "auto":
        return torch.float32 if on_cpu(options) or not torch.cuda.is_bf16_supported() else torch.bfloat16
    return torch.float32 if options.dtype == "float32" else torch.bfloat16


def shared_fields(seed: int, options: TrainingOptions) -> JsonObject:
    """The fields of TRL's configs that are the same for every method."""
    cpu = on_cpu(options)
    return {
        "seed": seed,
        "num_train_epochs": options.epochs,
        "max_steps": options.max_steps or -1,
        "learning_rate": options.learning_rate,
        "per_device_train_batch_size": options.batch_size,
        "per_device_eval_batch_size": options.batch_size,
        "gradient_accumulation_steps": options.accumulate,
        "use_cpu": cpu,
        "bf16": dtype(options) is torch.bfloat16,
        "gradient_checkpointing": False,
        "optim": "adamw_torch_fused",  # named, because the default may change and 1e-7 is enough to differ
        "save_strategy": "steps",
        "save_steps": options.save_every or 1_000_000_000,
        "save_total_limit": 2,
        "logging_steps": options.log_every,
        "dataloader_pin_memory": not cpu,
    }


_LOGGED = {"logging_nan_inf_filter": False, "report_to": "none", "disable_tqdm": True}
"""Metrics are kept in metrics.jsonl, and a loss that is not a number must be visible there."""


def settings(config: type, job: Job, options: TrainingOptions, **own: object) -> object:
    """TRL's `config` from our options, the method's `own` fields and what is passed through. Raises Mistake."""
    known = sorted({field.name for field in fields(config)} - {"output_dir"})  # set from the order
    for key in options.trl:
        if key not in known:
            raise Mistake(f"trl.{key}", f"is not a field of TRL's {config.__name__}", suggest(key, known))
    given = {
        "output_dir": str(job.out / "checkpoints"),
        **shared_fields(job.seed, options),
        **_LOGGED,
        **own,
        **options.trl,
    }
    try:
        with quiet():
            made = config(**given)
    except (TypeError, ValueError) as error:
        raise Mistake("options", f"TRL rejects them: {str(error).splitlines()[0]}", "see `--print-config`") from error
    _check_reporters(made.report_to)
    return made


def _check_reporters(names: list[str]) -> None:
    from transformers.integrations import get_available_reporting_integrations

    available = get_available_reporting_integrations()
    for name in names:
        if name not in available:
            what = f"{name} is not installed or not known to transformers"
            raise Mistake(
                "trl.report_to", what, f"install it, or use one of: none, {', '.join(available)}".rstrip(", ")
            )


# --- Weights ----------------------------------------------------------------------------------------------------------


def open_policy(
    folder: Path, options: TrainingOptions, kind: type[PreTrainedModel] = AutoModelForCausalLM, **loading: object
) -> PreTrainedModel:
    """The model in `folder`, an adapter merged; float32 for full fine-tuning. Raises Mistake."""
    held = dtype(options) if options.r else torch.float32  # frozen weights can be held in the compute precision
    if kind is AutoModelForCausalLM:
        refuse_rewards(folder)
    try:
        return open_whole(folder, kind, dtype=held, **loading)
    except CaiError:
        raise
    except Exception as error:  # a damaged folder raises one of many unrelated classes
        raise load_mistake(str(folder), error) from error


def open_whole(folder: Path, kind: type[PreTrainedModel], **loading: object) -> PreTrainedModel:
    """The model in a folder; an adapter is merged into its base model."""
    if (folder / ADAPTER).is_file():
        return merged(folder, kind, None, **loading)
    refuse_code(str(folder), folder)
    return kind.from_pretrained(str(folder), trust_remote_code=False, **loading)


def merged(
    adapter: Path, kind: type[PreTrainedModel] = AutoModelForCausalLM, base: Path | None = None, **loading: object
) -> PreTrainedModel:
    """An adapter merged into its base model, in that model's precision unless `dtype` is given."""
    from peft import PeftModel

    named = json.loads((adapter / ADAPTER).read_text("utf-8"))["base_model_name_or_path"]
    loading.setdefault("dtype", "auto")
    whole = open_whole(base or Path(named), kind, **loading)
    model = PeftModel.from_pretrained(whole, str(adapter)).merge_and_unload()
    model.config._name_or_path = str(base or named)
    return model


def lora(options: TrainingOptions, job: Job, task: str = "CAUSAL_LM") -> object:
    """The LoRA configuration, or None for full fine-tuning."""
    from peft import LoraConfig

    if not options.r:
        return None
    return LoraConfig(
        r=options.r,
        lora_alpha=2 * options.r,
        target_modules="all-linear",
        task_type=task,
        base_model_name_or_path=str(job.model),
    )


def save(
    trainer: Trainer,
    tokenizer: PreTrainedTokenizerBase,
    job: Job,
    options: TrainingOptions,
    kind: type[PreTrainedModel] = AutoModelForCausalLM,
    **loading: object,
) -> None:
    """Write the trained model to `out/model`, whole or not at all; LoRA is merged unless `merge` is off.

    `kind` and `loading` say how the initial model is loaded, to merge an adapter into it.
    """
    first = trainer.accelerator.is_main_process
    target = job.out / "model"
    raw = target.with_name(".model.raw")
    trainer.save_model(str(raw))  # gathers the shards of all processes
    trainer.accelerator.wait_for_everyone()
    if first:
        with replaced_folder(target) as folder:
            if (raw / ADAPTER).is_file() and options.merge:
                model = merged(raw, kind, job.model, **loading)
                model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
                model.save_pretrained(folder)
            else:
                shutil.copytree(raw, folder, dirs_exist_ok=True)
                (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle; settings.json has the settings
                (folder / "README.md").unlink(missing_ok=True)
            tokenizer.save_pretrained(folder)
        shutil.rmtree(raw, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()


# --- Running ----------------------------------------------------------------------------------------------------------


class JobCallback(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
    """Passes metrics on, marks complete checkpoints, stops on Ctrl-C."""

    def __init__(self, job: Job, stop: Stop) -> None:
        self.job, self.stop = job, stop

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float | int | str] | None = None,
        **_: object,
    ) -> None:
        if state.is_world_process_zero:
            self.job.log({"step": state.global_step, **(logs or {})})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> object:
        if any_process(self.stop.asked):
            control.should_save = control.should_training_stop = True
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if state.is_world_process_zero:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class Guarded:
    """A mixin for TRL's trainers: a loss that is not a number stops the training before the weights are updated."""

    def training_step(self, *args: object, **kwargs: object) -> object:
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]  # defined by the trainer
        if not torch.isfinite(loss):
            step = self.state.global_step + 1  # type: ignore[attr-defined]
            raise Mistake(f"step {step}", f"the loss is {loss.item()}", "lower learning_rate, or look at the rows")
        return loss


def run_trainer(trainer: Trainer, job: Job) -> dict[str, float]:
    """Train, resuming from the last complete checkpoint where the job says so, and evaluate. Figures by name.

    `seconds` are those of this start. Raises Mistake for a loss that is not a number, KeyboardInterrupt after Ctrl-C.
    """
    last = last_checkpoint(job.out / "checkpoints") if job.resume else None
    for weight in trainer.model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()  # Adam's steps are smaller than bfloat16 can represent
    with interruptible() as stop, quiet():
        trainer.remove_callback(PrinterCallback)  # it prints to stdout
        trainer.add_callback(JobCallback(job, stop))
        seconds = 0.0
        if last and _is_end(last, trainer.args.max_steps):  # stopped after the last step: TRL would do one more
            trainer._load_from_checkpoint(str(last))
            trainer.state = TrainerState.load_from_json(str(last / STATE))
        else:
            seconds = trainer.train(resume_from_checkpoint=str(last) if last else None).metrics["train_runtime"]
        held_out = trainer.evaluate() if job.held_out and not stop.asked else {}
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    figures = {
        "steps": trainer.state.global_step,
        "seconds": seconds,
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        **{
            name: value
            for name, value in held_out.items()
            if not name.endswith(("_per_second", "_runtime", "_time", "epoch"))
        },
    }
    return {name: value for name, value in figures.items() if isinstance(value, int | float) and isfinite(value)}


def _is_end(checkpoint: Path, steps: int) -> bool:
    """Whether a checkpoint is that of the last of `steps` steps; below 1, the number in the checkpoint counts."""
    state = json.loads((checkpoint / STATE).read_text("utf-8"))
    return bool(state["global_step"] >= (steps if steps > 0 else state["max_steps"]) > 0)


def any_process(asked: bool) -> bool:
    """Whether any process was asked to stop. All must stop after the same step, or the others wait for ever."""
    if not torch.distributed.is_initialized():
        return asked
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    flag = torch.tensor(int(asked), device=device)
    torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
    return bool(flag.item())


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars or warnings from TRL, transformers and datasets."""
    import datasets
    from transformers.utils import logging as library

    library.set_verbosity_error()
    library.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in ("trl", "accelerate", "peft", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
