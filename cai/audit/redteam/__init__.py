"""Red teaming: edits that raise a reward, and wrappers that make a policy answer."""
