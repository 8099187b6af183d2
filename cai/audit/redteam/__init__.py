"""Search for what breaks a reward or a policy: edits that are paid for and wrappers that get an answer.

Left out on purpose: attacks by gradients or by a writing model. What is here is short, repeats exactly, and is known
to everybody who trains; what it finds, anybody will find.
"""
