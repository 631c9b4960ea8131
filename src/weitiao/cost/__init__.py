"""What a training takes: memory, minutes, disk and price, on the machine at hand or on a card that is named.

    cards        cards by name, as their data sheets have them
    at_hand      the card of this machine
    machine      what is asked about: one of these, or this machine's CPU
    model        widths and weights, from `config.json` and the headers of the weights
    work         steps and tokens, from the figures of `weitiao check`
    memory       the peak, and what the engine would do about it
    minutes      operations over a rate
    estimate     all of it, as JSON, and the finding `too-large`
    told         the same in lines

Sums over widths are the engine's own (`engine/room.py`), and so are the rules of placement, disk and CPU. No torch.
"""
