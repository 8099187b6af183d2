"""The training loop of PPO: sample, reward, compute advantages, update; and its checkpoints. Imports torch.

With several processes (torchrun) each samples and trains on its share; all hold all answers of the step, so that
whitening and token counts are the same as with one. The learning rate is constant, and weights are not sharded.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Mapping, Sequence
from math import ceil, isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from cai.core.errors import Mistake
from cai.core.plugin_types import Job
from cai.core.seeds import seed
from cai.core.types import JsonObject
from cai.train.rl.options import fitting_prompts
from cai.train.rl.ppo_losses import Losses, advantages, ppo_losses, token_rewards, whitened
from cai.train.rl.ppo_options import Options
from cai.train.rl.ppo_policy import Answer, Policy
from cai.train.rl.rewards import Rewards
from cai.train.trl.checkpoints import last_checkpoint, seal, step
from cai.train.trl.interrupt import interruptible
from cai.train.trl.trainer import any_process, on_cpu, quiet, save

KEPT_CHECKPOINTS = 2
"""Most recent checkpoints that are kept."""


def train_ppo(job: Job, options: Options) -> Mapping[str, object]:
    """Train to the end, or to a checkpoint on Ctrl-C. Raises Mistake, KeyboardInterrupt."""
    rewards = Rewards(options.rewards, options.combine, job)  # first, so that a wrong name costs no compute
    try:
        with interruptible() as stop, quiet():
            torch.manual_seed(job.seed)
            learner = Learner(job, options)
            if job.resume:
                learner.resume()
            asked = False
            while learner.step < learner.total and not asked:
                learner.train_step(rewards)
                asked = any_process(stop.asked)
                if asked or (options.save_every and learner.step % options.save_every == 0):
                    learner.checkpoint()
            if not asked:
                save(learner, learner.policy.tokenizer, job, options)
    finally:
        rewards.close()
    return learner.figures()


class Learner:
    """The state of a PPO training between two steps."""

    def __init__(self, job: Job, options: Options) -> None:
        self.job, self.options = job, options
        self.accelerator = PartialState(cpu=on_cpu(options))
        self.policy = Policy(job, options)
        self.kl = options.kl()
        self.optimiser = torch.optim.AdamW(self.policy.trained(), lr=options.learning_rate, eps=1e-5, weight_decay=0.0)
        self.step, self.tokens, self.failed, self.seconds = 0, 0, 0, 0.0
        self.last: dict[str, float | int | str] = {}
        self.prompts = fitting_prompts(job.rows, self.policy.tokenizer, options)
        self.total = options.max_steps or max(1, ceil(options.epochs * len(self.prompts.rows) / options.rollouts))
        if options.rollouts < self.accelerator.num_processes:
            raise Mistake(
                "rollouts",
                f"{options.rollouts} answers are fewer than processes",
                "set rollouts to the number of processes or more",
            )

    def train_step(self, rewards: Rewards) -> None:
        """One step: sample, update, adapt the KL coefficient, log."""
        started = time.perf_counter()
        answers, disagreement = self.sample_answers(rewards)
        kept = [one for one in answers if one.score is not None]
        metrics = self.learn(kept)
        kl = fmean(one.kl for one in kept)
        metrics |= {"kl": kl, "kl_coef": self.kl.coefficient}
        self.kl.update(kl, len(kept))
        self.step += 1
        written = sum(len(one.tokens) for one in answers)
        elapsed = time.perf_counter() - started
        self.tokens, self.seconds = self.tokens + written, self.seconds + elapsed
        self.failed += len(answers) - len(kept)
        self.last = {"step": self.step, **_described(answers, kept), **metrics, "tokens_per_second": written / elapsed}
        if disagreement is not None:
            self.last["disagreement"] = disagreement
        if self.accelerator.is_main_process and self.step % self.options.log_every == 0:
            self.job.log(self.last)

    # --- Answers ------------------------------------------------------------------------------------------------------

    def sample_answers(self, rewards: Rewards) -> tuple[list[Answer], float | None]:
        """The answers of this step from all processes, with rewards, log-probabilities and values."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        size = self.options.rollouts
        rows = self.prompts.indices(self.job.seed, self.step * size, size)[rank::world]
        places = list(range(rank, size, world))
        seeds = [seed(self.job.seed, "ppo", self.step, place) for place in places]
        answers = list(self.policy.answers([self.prompts.tokens[row] for row in rows], seeds, places))
        batch_rewards = rewards.of([self.prompts.rows[row] for row in rows], [one.text for one in answers])
        for one, score in zip(answers, batch_rewards.scores, strict=True):
            penalty = 0.0 if one.ended else self.options.missing_eos_penalty
            one.score = None if score is None else score - penalty
        self._add_outputs([one for one in answers if one.score is not None])
        everyone = _gathered(answers)
        everyone.sort(key=lambda one: one.place)
        return everyone, batch_rewards.disagreement

    def _add_outputs(self, answers: Sequence[Answer]) -> None:
        size = self.options.batch_size
        for begin in range(0, len(answers), size):
            batch = answers[begin : begin + size]
            with torch.no_grad():
                read, _ = self.policy.read(batch)
            reference_BT = self.policy.reference(batch)
            for place, one in enumerate(batch):
                here = place, slice(len(one.tokens))
                one.logprobs_T, one.reference_T = read.logprobs_BT[here].cpu(), reference_BT[here].cpu()
                one.values_T, one.entropy = read.values_BT[here].cpu(), float(read.entropy_BT[here].mean())

    # --- Learning -----------------------------------------------------------------------------------------------------

    def learn(self, answers: Sequence[Answer]) -> dict[str, float]:
        """Several passes over the answers of one step, in groups; metrics as means over all tokens trained on."""
        self.compute_advantages(answers)
        options, sums = self.options, dict.fromkeys(("policy_loss", "value_loss", "clip", "approx_kl"), 0.0)
        size = options.batch_size * options.accumulate * self.accelerator.num_processes
        seen = 0
        for turn in range(options.passes):
            order = list(answers)
            random.Random(seed(self.job.seed, "pass", self.step, turn)).shuffle(order)
            for begin in range(0, len(order), size):
                group = order[begin : begin + size]
                tokens = sum(len(one.tokens) for one in group)
                found = self.update(group, tokens)
                sums = {name: total + found[name] for name, total in sums.items()}
                seen += tokens
                if options.target_kl is not None and found["approx_kl"] > options.target_kl * tokens:
                    return {name: total / seen for name, total in sums.items()}
        return {name: total / seen for name, total in sums.items()}

    def compute_advantages(self, answers: Sequence[Answer]) -> None:
        """Set the advantages and returns of the answers of a step."""
        mask_BT = _padded([torch.ones(len(one.tokens)) for one in answers])
        values_BT, logprobs_BT = (
            _padded([one.values_T for one in answers]),
            _padded([one.logprobs_T for one in answers]),
        )
        logratio_BT = logprobs_BT - _padded([one.reference_T for one in answers])
        scores_B = torch.tensor([one.score for one in answers])
        rewards_BT = token_rewards(scores_B, logratio_BT, mask_BT, self.kl.coefficient)
        if self.options.whiten_rewards:
            rewards_BT = whitened(rewards_BT, mask_BT, centre=False)
        found_BT, returns_BT = advantages(
            rewards_BT, values_BT, mask_BT, gamma=self.options.gamma, decay=self.options.decay
        )
        if self.options.whiten_advantages:
            found_BT = whitened(found_BT, mask_BT)
        for place, one in enumerate(answers):
            here = place, slice(len(one.tokens))
            one.advantages_T, one.returns_T = found_BT[here], returns_BT[here]

    def update(self, group: Sequence[Answer], tokens: int) -> dict[str, float]:
        """One update of the weights by the mean loss over all `tokens` of a group; sums of its metrics.

        The mean is over the group, not over its batches: 1 x 8 and 8 x 1 are the same step. Raises Mistake.
        """
        rank, world, size = self.accelerator.process_index, self.accelerator.num_processes, self.options.batch_size
        mine, sums = group[rank::world], torch.zeros(4, device=self.policy.device)
        self.optimiser.zero_grad()
        for begin in range(0, len(mine), size):
            found = self._losses(mine[begin : begin + size])
            loss = (found.policy + self.options.value_weight * found.value) / tokens
            torch.autograd.backward(loss)
            sums += torch.stack([found.policy.detach(), found.value.detach(), found.clipped, found.approx_kl])
        self._reduce(sums)
        metrics = dict(zip(("policy_loss", "value_loss", "clip", "approx_kl"), sums.tolist(), strict=True))
        if not all(map(isfinite, metrics.values())):
            raise Mistake(f"step {self.step + 1}", "the loss is not a number", "lower learning_rate")
        nn.utils.clip_grad_norm_(self.policy.trained(), self.options.max_grad_norm)
        self.optimiser.step()
        return metrics

    def _losses(self, batch: Sequence[Answer]) -> Losses:
        read, mask_BT = self.policy.read(batch)
        given = [
            _padded([getattr(one, name) for one in batch]).to(self.policy.device)
            for name in ("logprobs_T", "advantages_T", "values_T", "returns_T")
        ]
        old_BT, advantages_BT, values_BT, returns_BT = given
        return ppo_losses(
            read.logprobs_BT, old_BT, advantages_BT, mask_BT, self.options.clip,
            read.values_BT, values_BT, returns_BT, self.options.value_clip,
        )  # fmt: skip

    def _reduce(self, sums: Tensor) -> None:
        """Sum gradients and metrics over the processes."""
        if self.accelerator.num_processes == 1:
            return
        for weight in self.policy.trained():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            torch.distributed.all_reduce(weight.grad)
        torch.distributed.all_reduce(sums)

    # --- Checkpoints --------------------------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Save everything that the next step depends on to `checkpoints/checkpoint-N`. Raises Mistake."""
        folder = self.job.out / "checkpoints"
        if self.accelerator.is_main_process:
            here = folder / f"checkpoint-{self.step}"
            here.mkdir(parents=True, exist_ok=True)
            try:
                torch.save(self._state(), here / "state.pt")
            except (OSError, RuntimeError) as error:
                raise Mistake(str(here), f"cannot be written: {error}", "free space, or another folder") from error
            seal(here)
            for old in sorted(folder.glob("checkpoint-*"), key=step)[:-KEPT_CHECKPOINTS]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def _state(self) -> dict[str, Any]:
        learns = {name: weight for name, weight in self.policy.model.named_parameters() if weight.requires_grad}
        counts = {"step": self.step, "tokens": self.tokens, "failed": self.failed, "seconds": self.seconds}
        return {
            "policy": {name: weight.detach() for name, weight in learns.items()},
            "head": self.policy.head.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "kl_coef": self.kl.coefficient,
            "rng": torch.get_rng_state(),
            "last": self.last,
            **counts,
        }

    def resume(self) -> None:
        """Resume from the last complete checkpoint, if there is one."""
        last = last_checkpoint(self.job.out / "checkpoints")
        if last is None:
            return
        state = torch.load(last / "state.pt", map_location="cpu", weights_only=True)
        self.policy.model.load_state_dict(state["policy"], strict=False)
        self.policy.head.load_state_dict(state["head"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.kl.coefficient, self.last = state["kl_coef"], state["last"]
        torch.set_rng_state(state["rng"] if "rng" in state else state["chance"])  # `chance` in earlier versions
        for name in ("step", "tokens", "failed", "seconds"):
            setattr(self, name, state[name])

    def save_model(self, folder: str) -> None:
        """Save the weights or the adapter as transformers reads them, without the value head."""
        if self.accelerator.is_main_process:
            self.policy.model.save_pretrained(Path(folder))

    def figures(self) -> JsonObject:
        """The figures of the finished training."""
        metrics = {
            name: value for name, value in self.last.items() if isinstance(value, int | float) and name != "step"
        }
        return metrics | {
            "steps": self.step,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": self.tokens / max(self.seconds, 1e-9),
            "unrewarded": self.failed,
            "too_long": len(self.job.rows) - len(self.prompts.rows),
        }


def _described(answers: Sequence[Answer], kept: Sequence[Answer]) -> dict[str, float | int | str]:
    return {
        "reward": fmean(one.score or 0.0 for one in kept),
        "entropy": fmean(one.entropy for one in kept),
        "length": fmean(len(one.tokens) for one in answers),
        "ended": fmean(one.ended for one in answers),
        "unrewarded": len(answers) - len(kept),
        "sample": answers[0].text,
    }


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return pad_sequence(list(rows), batch_first=True)


def _gathered(answers: list[Answer]) -> list[Answer]:
    """The answers of all processes."""
    if not torch.distributed.is_initialized():
        return answers
    parts: list[list[Answer]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, answers)
    return [one for part in parts for one in part]
