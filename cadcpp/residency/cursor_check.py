"""Whether llama.cpp tells how far a pass is, which streaming rests on."""

_COST = "by page faults, which is slower and may take more than --ram; the text is the same. Check: cadcpp doctor"
NO_LAYER = f"llama.cpp reports no layer of this model (l_out-N), so its weights are read {_COST}"
NO_ROUTER = f"llama.cpp reports no router of this mixture (ffn_moe_argsort-N), so its experts are read {_COST}"


class CursorCheck:
    """Judges by the first pass that runs to its end; one that was stopped may not have come to a layer's end.

    llama.cpp does not promise the names of its tensors, by which layers and routers are known.
    """

    def __init__(self, *, layers: bool = True, routers: bool) -> None:
        """``layers``: whether this machine computes any. ``routers``: whether experts are paged, so that routers must
        be reported too."""
        self._layer, self._router = not layers, not routers
        self.reported: bool | None = None  # unknown before the first whole pass

    def layer_done(self) -> None:
        self._layer = True

    def experts_chosen(self) -> None:
        self._router = True

    def end_pass(self, whole: bool) -> str | None:
        """A pass is over, ``whole`` if it ran to its end. Gives what is wrong, once."""
        if not whole or self.reported is not None:
            return None
        self.reported = self._layer and self._router
        if self.reported:
            return None
        return NO_ROUTER if self._layer else NO_LAYER
