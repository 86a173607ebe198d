"""Training: from what a user gives to a ``Run``.

entry : ``train``, which checks and moves what it is given
data : rows on the device, held out, shuffled, cut into minibatches
loop : epochs, history, callbacks, interruption; ``Run``
descent : one step of gradient descent, or many recorded ones
metrics : accuracy and R2
threads : how many threads compute, and the team that shares a compiled step
"""
