"""From prompts to a policy: drafts, traces, pairs, exports, trainings, comparisons."""
