//! The multilingual E5 model as its package carries it, made into an ONNX file.
//!
//! The package has one file of weights for an engine of its own: a header, the tokenizer's vocabulary, a directory of
//! tensors, and the tensors. Matrices have four bits a weight, in blocks of 32 that share a scale:
//!
//! ```text
//! block: scale as f16, then 16 bytes; byte j has weight j in its low half and weight j + 16 in its high half; a weight
//!        is (half - 8) * scale
//! ```
//!
//! ONNX has the same as `MatMulNBits` with blocks of 32, but byte j has weights 2j and 2j + 1 there. So the weights are
//! rearranged and nothing is computed anew. The table of word vectors stays packed too, because it is three quarters of the
//! model: the graph unpacks the rows of the words that a text has.
//!
//! The model is a BERT: 12 layers of attention and feed-forward, each followed by a layer norm.

use anyhow::{Context, Result, ensure};

use super::onnx::{CONTRIB, FLOAT, Graph, INT64, UINT8, Value};

const MAGIC: &[u8; 4] = b"E5S1";
const BLOCK: usize = 32;
const BLOCK_BYTES: usize = 2 + BLOCK / 2;
/// More tensors than any such model has.
const TENSORS_MAX: usize = 10_000;
/// What is added to the score of a token that is only there to fill up: none of its attention is left.
const MASKED: f32 = -10_000.0;

/// Reads numbers off the front of the file.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count).context("the file of weights ends too early")?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    fn u16(&mut self) -> Result<usize> {
        Ok(u16::from_le_bytes(self.array()?).into())
    }

    fn u32(&mut self) -> Result<usize> {
        Ok(u32::from_le_bytes(self.array()?).try_into()?)
    }

    fn u64(&mut self) -> Result<usize> {
        Ok(u64::from_le_bytes(self.array()?).try_into()?)
    }

    fn f32(&mut self) -> Result<f32> {
        Ok(f32::from_le_bytes(self.array()?))
    }
}

struct Weights<'a> {
    file: &'a [u8],
    hidden: usize,
    layers: usize,
    heads: usize,
    inner: usize,
    words: usize,
    positions: usize,
    epsilon: f32,
    /// Name and offset.
    tensors: Vec<(String, usize)>,
}

impl<'a> Weights<'a> {
    fn read(file: &'a [u8]) -> Result<Self> {
        let mut cursor = Cursor(file);
        ensure!(cursor.take(4)? == MAGIC, "the file of weights does not begin with E5S1");
        cursor.u32()?;
        let mut number = || cursor.u32();
        let (hidden, layers, heads, inner) = (number()?, number()?, number()?, number()?);
        let (words, positions, _types) = (number()?, number()?, number()?);
        let epsilon = cursor.f32()?;
        ensure!(cursor.u32()? == BLOCK, "the weights are not in blocks of {BLOCK}");
        ensure!(hidden % BLOCK == 0 && inner % BLOCK == 0 && heads > 0 && hidden % heads == 0, "odd sizes");
        // The tokenizer: its vocabulary and normalisation, which tokenizer.json has too.
        let pieces = cursor.u32()?;
        cursor.take(16)?;
        let text = cursor.u64()?;
        cursor.take((pieces + 1) * 4)?;
        cursor.take(pieces * 4)?;
        cursor.take(text)?;
        cursor.u32()?;
        let normalisation = cursor.u32()?;
        cursor.take(normalisation)?;
        let count = cursor.u32()?;
        ensure!(count <= TENSORS_MAX, "there are {count} tensors");
        let mut tensors = Vec::with_capacity(count);
        for _ in 0..count {
            let length = cursor.u16()?;
            let name = std::str::from_utf8(cursor.take(length)?)?.to_owned();
            cursor.take(5)?;
            tensors.push((name, cursor.u64()?));
            cursor.take(8)?;
        }
        Ok(Self { file, hidden, layers, heads, inner, words, positions, epsilon, tensors })
    }

    fn bytes(&self, name: &str, length: usize) -> Result<&'a [u8]> {
        let tensor = self.tensors.iter().find(|(known, _)| known == name);
        let (_, offset) = tensor.with_context(|| format!("the weights have no {name}"))?;
        let end = offset.checked_add(length).context("the offset is not one")?;
        self.file.get(*offset..end).with_context(|| format!("{name} is not inside the file of weights"))
    }

    fn floats(&self, name: &str, count: usize) -> Result<Vec<f32>> {
        let bytes = self.bytes(name, count * 4)?;
        Ok(bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
    }

    /// The blocks' scales and their packed bytes as they lie in the file.
    fn blocks(&self, name: &str, weights: usize) -> Result<(Vec<f32>, Vec<&'a [u8]>)> {
        let bytes = self.bytes(name, weights / BLOCK * BLOCK_BYTES)?;
        let blocks = bytes.chunks_exact(BLOCK_BYTES).map(|block| block.split_at(2));
        Ok(blocks.map(|(scale, packed)| (half(u16::from_le_bytes([scale[0], scale[1]])), packed)).unzip())
    }
}

/// An IEEE half as a float.
fn half(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let fraction = f32::from(bits & 0x3ff);
    sign * match bits >> 10 & 0x1f {
        0 => fraction / 1_024.0 * 2_f32.powi(-14),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        exponent => (1.0 + fraction / 1_024.0) * 2_f32.powi(i32::from(exponent) - 15),
    }
}

/// Halves j and j + 16 of a block, as neighbours 2j and 2j + 1.
fn rearranged(packed: &[u8]) -> impl Iterator<Item = u8> {
    let weight = |at: usize| if at < BLOCK / 2 { packed[at] & 0x0f } else { packed[at - BLOCK / 2] >> 4 };
    (0..BLOCK / 2).map(move |at| weight(2 * at) | weight(2 * at + 1) << 4)
}

struct Builder<'a> {
    weights: Weights<'a>,
    graph: Graph,
}

/// The ONNX file: `input_ids` and `attention_mask` of [texts, tokens] in, `last_hidden_state` of [texts, tokens, 384] out.
pub fn convert(file: &[u8]) -> Result<Vec<u8>> {
    let weights = Weights::read(file)?;
    let mut builder = Builder { weights, graph: Graph::default() };
    let (hidden, heads) = (builder.weights.hidden, builder.weights.heads);
    for name in ["input_ids", "attention_mask"] {
        builder.graph.input(name, INT64, &[Err("texts"), Err("tokens")]);
    }
    builder.graph.output("last_hidden_state", FLOAT, &[Err("texts"), Err("tokens"), Ok(hidden)]);
    builder.graph.ints("by-head", &[0, 0, heads as i64, (hidden / heads) as i64]);
    builder.graph.ints("joined", &[0, 0, hidden as i64]);
    let mask = builder.mask();
    let mut state = builder.embeddings()?;
    for layer in 0..builder.weights.layers {
        state = builder.layer(layer, &state, &mask)?;
    }
    builder.graph.named_node("", "Identity", &[&state], &[], "last_hidden_state");
    Ok(builder.graph.finish("multilingual-e5-small"))
}

impl Builder<'_> {
    fn op(&mut self, kind: &str, inputs: &[&str]) -> String {
        self.graph.node("", kind, inputs, &[])
    }

    /// What is added to attention scores: [texts, 1, 1, tokens], 0 or [`MASKED`].
    fn mask(&mut self) -> String {
        self.graph.floats("one", &[], &[1.0]);
        self.graph.floats("masked", &[], &[MASKED]);
        self.graph.ints("mask-shape", &[0, 1, 1, -1]);
        let kept = self.graph.node("", "Cast", &["attention_mask"], &[("to", Value::Int(FLOAT as i64))]);
        let filled = self.op("Sub", &["one", &kept]);
        let mask = self.op("Mul", &[&filled, "masked"]);
        self.op("Reshape", &[&mask, "mask-shape"])
    }

    /// Word, position and type vectors, normed. The type is the same for all tokens, so it is added to the positions here.
    fn embeddings(&mut self) -> Result<String> {
        let Weights { hidden, words, positions, .. } = self.weights;
        let blocks = hidden / BLOCK;
        let (scales, packed) = self.weights.blocks("emb.word", words * hidden)?;
        self.graph.tensor("words", UINT8, &[words, hidden / 2], &packed.concat());
        self.graph.floats("word-scales", &[words, blocks], &scales);
        let kind = self.weights.floats("emb.type", hidden)?;
        let table = self.weights.floats("emb.pos", positions * hidden)?;
        let table: Vec<f32> = table.iter().zip(kind.iter().cycle()).map(|(position, kind)| position + kind).collect();
        self.graph.floats("positions", &[positions, hidden], &table);
        self.graph.ints("packed-shape", &[0, 0, blocks as i64, (BLOCK / 2) as i64]);
        self.graph.ints("scale-shape", &[0, 0, blocks as i64, 1]);
        for (name, value) in [("sixteenth", 1.0 / 16.0), ("sixteen", 16.0), ("eight", 8.0)] {
            self.graph.floats(name, &[], &[value]);
        }

        let rows = self.op("Gather", &["words", "input_ids"]);
        let rows = self.graph.node("", "Cast", &[&rows], &[("to", Value::Int(FLOAT as i64))]);
        let rows = self.op("Reshape", &[&rows, "packed-shape"]);
        let shifted = self.op("Mul", &[&rows, "sixteenth"]);
        let high = self.op("Floor", &[&shifted]);
        let of_high = self.op("Mul", &[&high, "sixteen"]);
        let low = self.op("Sub", &[&rows, &of_high]);
        let halves = self.graph.node("", "Concat", &[&low, &high], &[("axis", Value::Int(3))]);
        let halves = self.op("Sub", &[&halves, "eight"]);
        let scales = self.op("Gather", &["word-scales", "input_ids"]);
        let scales = self.op("Reshape", &[&scales, "scale-shape"]);
        let vectors = self.op("Mul", &[&halves, &scales]);
        let vectors = self.op("Reshape", &[&vectors, "joined"]);

        self.graph.ints("from", &[0]);
        self.graph.ints("token-axis", &[1]);
        let shape = self.op("Shape", &["input_ids"]);
        let tokens = self.graph.node("", "Gather", &[&shape, "token-axis"], &[("axis", Value::Int(0))]);
        let positions = self.op("Slice", &["positions", "from", &tokens, "from"]);
        let sum = self.op("Add", &[&vectors, &positions]);
        self.norm("emb.ln", &sum)
    }

    fn layer(&mut self, layer: usize, state: &str, mask: &str) -> Result<String> {
        let Weights { hidden, heads, inner, .. } = self.weights;
        let name = |part: &str| format!("l{layer}.{part}");
        // Attention divides its scores by the root of a head's size; that is done to the queries' weights, once, here.
        let calm = 1.0 / ((hidden / heads) as f32).sqrt();
        let queries = self.linear(&name("q"), state, hidden, hidden, calm)?;
        let queries = self.by_head(&queries, &[0, 2, 1, 3]);
        let keys = self.linear(&name("k"), state, hidden, hidden, 1.0)?;
        let keys = self.by_head(&keys, &[0, 2, 3, 1]);
        let values = self.linear(&name("v"), state, hidden, hidden, 1.0)?;
        let values = self.by_head(&values, &[0, 2, 1, 3]);
        let scores = self.op("MatMul", &[&queries, &keys]);
        let scores = self.op("Add", &[&scores, mask]);
        let shares = self.graph.node("", "Softmax", &[&scores], &[("axis", Value::Int(-1))]);
        let seen = self.op("MatMul", &[&shares, &values]);
        let seen = self.graph.node("", "Transpose", &[&seen], &[("perm", Value::Ints(&[0, 2, 1, 3]))]);
        let seen = self.op("Reshape", &[&seen, "joined"]);
        let seen = self.linear(&name("ao"), &seen, hidden, hidden, 1.0)?;
        let sum = self.op("Add", &[state, &seen]);
        let state = self.norm(&name("aln"), &sum)?;

        let wide = self.linear(&name("fi"), &state, hidden, inner, 1.0)?;
        let wide = self.op("Gelu", &[&wide]);
        let narrow = self.linear(&name("fo"), &wide, inner, hidden, 1.0)?;
        let sum = self.op("Add", &[&state, &narrow]);
        self.norm(&name("oln"), &sum)
    }

    fn by_head(&mut self, value: &str, order: &[i64]) -> String {
        let value = self.op("Reshape", &[value, "by-head"]);
        self.graph.node("", "Transpose", &[&value], &[("perm", Value::Ints(order))])
    }

    /// `input * weights + bias`, all times `factor`.
    fn linear(&mut self, name: &str, input: &str, rows: usize, columns: usize, factor: f32) -> Result<String> {
        let (scales, packed) = self.weights.blocks(&format!("{name}.w"), rows * columns)?;
        let scales: Vec<f32> = scales.iter().map(|scale| scale * factor).collect();
        let packed: Vec<u8> = packed.iter().flat_map(|block| rearranged(block)).collect();
        let bias: Vec<f32> =
            self.weights.floats(&format!("{name}.b"), columns)?.iter().map(|bias| bias * factor).collect();
        let (weights_name, scales_name, bias_name) =
            (format!("{name}.weights"), format!("{name}.scales"), format!("{name}.bias"));
        self.graph.tensor(&weights_name, UINT8, &[columns, rows / BLOCK, BLOCK / 2], &packed);
        self.graph.floats(&scales_name, &[columns, rows / BLOCK], &scales);
        self.graph.floats(&bias_name, &[columns], &bias);
        let attributes = [("K", rows), ("N", columns), ("bits", 4), ("block_size", BLOCK)]
            .map(|(name, value)| (name, Value::Int(value as i64)));
        let product = self.graph.node(CONTRIB, "MatMulNBits", &[input, &weights_name, &scales_name], &attributes);
        Ok(self.op("Add", &[&product, &bias_name]))
    }

    fn norm(&mut self, name: &str, input: &str) -> Result<String> {
        let (weight, bias) = (format!("{name}.w"), format!("{name}.b"));
        for part in [&weight, &bias] {
            let values = self.weights.floats(part, self.weights.hidden)?;
            self.graph.floats(part, &[self.weights.hidden], &values);
        }
        let attributes = [("axis", Value::Int(-1)), ("epsilon", Value::Float(self.weights.epsilon))];
        Ok(self.graph.node("", "LayerNormalization", &[input, &weight, &bias], &attributes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_and_blocks_are_read() {
        for (bits, value) in [(0x3c00, 1.0), (0xc000, -2.0), (0x3555, 0.333_251_95), (0x0001, 5.960_464_5e-8), (0, 0.0)]
        {
            assert_eq!(half(bits), value);
        }
        // Weights 0..16 in the low halves, 16..32 (mod 16) in the high ones, become pairs of neighbours.
        let packed: Vec<u8> = (0..16).map(|at: u8| at | (15 - at) << 4).collect();
        let expected: Vec<u8> =
            [[0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe], [0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01]]
                .concat();
        assert_eq!(rearranged(&packed).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_broken_file_is_an_error() {
        assert!(convert(b"").is_err());
        assert!(convert(b"E5S1").is_err());
        assert!(convert(&[b"E5S1".as_slice(), &[0xff; 200]].concat()).is_err());
    }
}
