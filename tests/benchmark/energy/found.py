"""What a search for energy meters has found."""


def only(found):
    assert len(found.meters) == 1, found.unusable
    return found.meters[0]


def reason(found):
    assert found.meters == ()
    return " ".join(item.reason for item in found.unusable)


def watts_of(meter):
    return meter._watts()
