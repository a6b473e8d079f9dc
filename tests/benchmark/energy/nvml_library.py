"""A library NVML of cards that are described."""


class Nvml:
    """Functions of the module pynvml over cards that are given as a list of dicts."""

    class NVMLError(Exception):
        pass

    def __init__(self, *cards, starts=True):
        self.cards, self.starts = cards, starts

    def nvmlInit(self):
        if not self.starts:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self):
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index):
        return self.cards[index]

    def nvmlDeviceGetName(self, card):
        return card["name"]

    def _get(self, card, key):
        if key not in card:
            raise self.NVMLError("Not Supported")
        return card[key]

    def nvmlDeviceGetTotalEnergyConsumption(self, card):
        return self._get(card, "millijoules")

    def nvmlDeviceGetPowerUsage(self, card):
        return self._get(card, "milliwatts")
