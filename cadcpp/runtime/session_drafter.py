"""The drafter of a session, as its settings ask for it."""

from cadcpp.config import SessionConfig
from cadcpp.draft.base import Drafter
from cadcpp.draft.best_first import BestFirstGrowth
from cadcpp.draft.branch_pacer import BranchPacer
from cadcpp.draft.model_drafter import ModelDrafter
from cadcpp.draft.ngram_drafter import NgramDrafter
from cadcpp.draft.staged import StagedDrafter
from cadcpp.draft.switch import Switch
from cadcpp.gguf.vocabulary import fingerprint
from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.ngram.file import load
from cadcpp.ngram.katz import Katz
from cadcpp.ngram.predictor import NgramPredictor
from cadcpp.tree.limits import GrowthOptions


def make_drafter(config: SessionConfig, growth: GrowthOptions, verifier: Model, context: Context | None) -> Drafter:
    """A drafter with the draft model's context; without one, drafts come from the text and the n-grams alone."""
    ends, ngram = verifier.end_tokens(), _ngram(config, verifier)  # nothing follows an end, so none is drafted
    if context is None:
        return NgramDrafter(NgramPredictor(ngram), ends)
    unknown = range(verifier.n_vocab, context.model.n_vocab)  # padding that the verifier does not have
    never = [*ends, *unknown]
    start_growth = BranchPacer if config.fallback == "llmcad" else BestFirstGrowth
    if config.speculative == "draft":
        return ModelDrafter(context, never, start_growth=start_growth, options=growth)
    predictor = NgramPredictor(ngram, context.model.n_vocab)
    staged = StagedDrafter(context, never, predictor, start_growth=start_growth, options=growth)
    if config.speculative == "staged" or config.fallback != "cost":
        return staged
    return Switch(staged, NgramDrafter(predictor, ends))


def _ngram(config: SessionConfig, verifier: Model) -> Katz | None:
    path, header = config.ngram, verifier.header
    return load(path, header.n_vocab, fingerprint(header)) if path else None
