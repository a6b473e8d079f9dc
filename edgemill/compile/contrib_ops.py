"""Operators of the domain com.microsoft that every supported onnxruntime has on the CPU.

Read from the wheel of onnxruntime 1.20.1, the oldest release of the oldest runtime in the catalog:
`onnxruntime_pybind11_state.get_all_opkernel_def()`, provider CPUExecutionProvider. No operator has
left the list up to 1.32; a graph optimized by a newer onnxruntime may hold newer ones.
"""

from __future__ import annotations

OLDEST_RUNTIME = "1.20"

CONTRIB_OPS = frozenset(
    """
    Attention AttnLSTM BeamSearch BiasGelu BifurcationDetector CDist ConvTransposeWithDynamicPads
    CropAndResize DecoderMaskedMultiHeadAttention DequantizeLinear DynamicQuantizeLSTM DynamicQuantizeMatMul
    DynamicTimeWarping EmbedLayerNormalization ExpandDims FastGelu FusedConv FusedGemm FusedMatMul
    GatherBlockQuantized GatherND Gelu GreedySearch GridSample GroupQueryAttention Inverse MatMulBnb4
    MatMulFpQ4 MatMulInteger16 MatMulIntegerToFloat MatMulNBits MaxpoolWithMask MultiHeadAttention MurmurHash3
    NGramRepeatBlock NhwcMaxPool Pad QAttention QEmbedLayerNormalization QGemm QLinearAdd QLinearAveragePool
    QLinearConcat QLinearConv QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearSigmoid
    QLinearSoftmax QLinearWhere QuantizeLinear QuickGelu Range RotaryEmbedding SampleOp Sampling
    SkipLayerNormalization SkipSimplifiedLayerNormalization SparseAttention SparseToDenseMatMul Tokenizer
    TransposeMatMul Trilu UnfoldTensor Unique WhisperBeamSearch WordConvEmbedding
    """.split()  # noqa: SIM905  (seventy quoted names would be harder to read)
)
