//! A sentence-embedding model in this process: ONNX or rten file, mean pooling over the attention mask, length 1.
//!
//! Inference takes 10 to 50 ms a text and would stall the async threads, so it runs on blocking threads, and no more of
//! them at a time than the settings allow: further callers wait at the semaphore, which is fair. Each call runs on a pool
//! of one thread, so that a turn's latency does not depend on how many cores another turn has taken.

use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use rten::{Model, NodeId, RunOptions, ThreadPool, ValueOrView};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use sha2::{Digest, Sha256};
use tokenizers::{Tokenizer, TruncationParams};
use tokio::sync::Semaphore;

use super::embedding::normalise;
use super::{Calibration, EmbedError, Embedder, Purpose};

/// Texts per inference: more need memory in proportion and gain nothing on one thread.
const BATCH: usize = 8;

/// What the settings say about the model.
#[derive(Debug, Clone)]
pub(super) struct LocalModel {
    pub model_path: PathBuf,
    pub tokenizer_path: PathBuf,
    pub dimensions: usize,
    pub tokens_max: usize,
    pub threads: usize,
    pub query_prefix: String,
    pub passage_prefix: String,
}

pub(super) struct LocalEmbedder {
    model_id: String,
    dimensions: usize,
    calibration: Calibration,
    query_prefix: String,
    passage_prefix: String,
    engine: Arc<Engine>,
    slots: Arc<Semaphore>,
}

impl std::fmt::Debug for LocalEmbedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalEmbedder").field("model_id", &self.model_id).finish_non_exhaustive()
    }
}

struct Engine {
    model: Model,
    tokenizer: Tokenizer,
    threads: Vec<Arc<ThreadPool>>,
    next: std::sync::atomic::AtomicUsize,
    inputs: Inputs,
    output: NodeId,
    dimensions: usize,
}

struct Inputs {
    ids: NodeId,
    mask: NodeId,
    /// Models of the RoBERTa kind have none.
    types: Option<NodeId>,
}

impl LocalEmbedder {
    pub fn load(settings: LocalModel, calibration: Calibration) -> Result<Self, EmbedError> {
        let path = settings.model_path.clone();
        let load = |reason: String| EmbedError::Load { path: path.clone(), reason };
        let bytes = std::fs::read(&settings.model_path).map_err(|error| load(error.to_string()))?;
        let digest = hex::encode(Sha256::digest(&bytes).get(..6).unwrap_or_default());
        let model = Model::load(bytes).map_err(|error| load(error.to_string()))?;
        let missing = |name: &str| load(format!("it has no input called {name}"));
        let inputs = Inputs {
            ids: model.find_node("input_ids").ok_or_else(|| missing("input_ids"))?,
            mask: model.find_node("attention_mask").ok_or_else(|| missing("attention_mask"))?,
            types: model.find_node("token_type_ids"),
        };
        let output = ["last_hidden_state", "token_embeddings"].iter().find_map(|name| model.find_node(name));
        let output = output
            .or_else(|| model.output_ids().first().copied())
            .ok_or_else(|| load("it has no output".to_owned()))?;
        let tokenizer = tokenizer(&settings)?;
        let model_id = format!(
            "local-{digest}-{}-{}",
            settings.dimensions,
            hex::encode(Sha256::digest(prefixes(&settings)).get(..2).unwrap_or_default())
        );
        let threads = (0..settings.threads).map(|_| Arc::new(ThreadPool::with_num_threads(1))).collect();
        let dimensions = settings.dimensions;
        let engine = Engine { model, tokenizer, threads, next: 0.into(), inputs, output, dimensions };
        // One short text now: a wrong file or wrong dimensions must stop the start, not the first turn.
        engine.embed(&["start".to_owned()])?;
        Ok(Self {
            model_id,
            dimensions,
            calibration,
            query_prefix: settings.query_prefix,
            passage_prefix: settings.passage_prefix,
            engine: Arc::new(engine),
            slots: Arc::new(Semaphore::new(settings.threads)),
        })
    }
}

fn prefixes(settings: &LocalModel) -> String {
    format!("{}\n{}\n{}", settings.query_prefix, settings.passage_prefix, settings.tokens_max)
}

/// The model's tokenizer, without the padding and truncation its file may ask for: MiniLM's pads every text to 128
/// tokens, which makes each query as costly as the longest.
fn tokenizer(settings: &LocalModel) -> Result<Tokenizer, EmbedError> {
    let path = &settings.tokenizer_path;
    let failed = |reason: String| EmbedError::Tokenizer { path: path.clone(), reason };
    let mut tokenizer = Tokenizer::from_file(path).map_err(|error| failed(error.to_string()))?;
    tokenizer.with_padding(None);
    let truncation = TruncationParams { max_length: settings.tokens_max, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(|error| failed(error.to_string()))?;
    Ok(tokenizer)
}

impl Engine {
    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut order: Vec<(usize, tokenizers::Encoding)> = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            let encoding = self.tokenizer.encode_fast(text.as_str(), true);
            order.push((at, encoding.map_err(|error| EmbedError::Inference { reason: error.to_string() })?));
        }
        // Texts of similar length share a batch, so that little is spent on padding.
        order.sort_by_key(|(_, encoding)| encoding.len());
        let mut vectors = vec![Vec::new(); texts.len()];
        for batch in order.chunks(BATCH) {
            let encodings: Vec<&tokenizers::Encoding> = batch.iter().map(|(_, encoding)| encoding).collect();
            for ((at, _), vector) in batch.iter().zip(self.run(&encodings)?) {
                if let Some(slot) = vectors.get_mut(*at) {
                    *slot = vector;
                }
            }
        }
        Ok(vectors)
    }

    fn run(&self, batch: &[&tokenizers::Encoding]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let length = batch.iter().map(|encoding| encoding.len()).max().unwrap_or(0).max(1);
        let shape = [batch.len(), length];
        let column = |of: fn(&tokenizers::Encoding) -> &[u32]| -> NdTensor<i32, 2> {
            let rows = batch.iter().flat_map(|encoding| {
                let values = of(encoding).iter().map(|value| i32::try_from(*value).unwrap_or_default());
                values.chain(std::iter::repeat(0)).take(length)
            });
            NdTensor::from_data(shape, rows.collect::<Vec<i32>>())
        };
        let mut inputs: Vec<(NodeId, ValueOrView)> = vec![
            (self.inputs.ids, column(tokenizers::Encoding::get_ids).into()),
            (self.inputs.mask, column(tokenizers::Encoding::get_attention_mask).into()),
        ];
        if let Some(types) = self.inputs.types {
            inputs.push((types, column(tokenizers::Encoding::get_type_ids).into()));
        }
        let turn = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let pool = self.threads.get(turn % self.threads.len().max(1)).cloned();
        let options = RunOptions::default().with_thread_pool(pool);
        let failed = |reason: String| EmbedError::Inference { reason };
        let [output] =
            self.model.run_n(inputs, [self.output], Some(options)).map_err(|error| failed(error.to_string()))?;
        let hidden: NdTensor<f32, 3> = output
            .try_into()
            .map_err(|_| failed("expected an output of shape [texts, tokens, dimensions]".to_owned()))?;
        let [_, _, dimensions] = hidden.shape();
        if dimensions != self.dimensions {
            return Err(EmbedError::Dimensions { found: dimensions, expected: self.dimensions });
        }
        Ok(batch.iter().enumerate().map(|(row, encoding)| mean(&hidden, row, encoding)).collect())
    }
}

/// Mean of the token vectors that the attention mask keeps, at length 1.
fn mean(hidden: &NdTensor<f32, 3>, row: usize, encoding: &tokenizers::Encoding) -> Vec<f32> {
    let [_, tokens, dimensions] = hidden.shape();
    let mut vector = vec![0.0_f32; dimensions];
    for (token, kept) in encoding.get_attention_mask().iter().enumerate().take(tokens) {
        if *kept == 0 {
            continue;
        }
        for (at, sum) in vector.iter_mut().enumerate() {
            *sum += hidden.get([row, token, at]).copied().unwrap_or_default();
        }
    }
    normalise(&mut vector);
    vector
}

impl Embedder for LocalEmbedder {
    fn model_id(&self) -> &str {
        &self.model_id
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn calibration(&self) -> Calibration {
        self.calibration
    }

    fn embed<'a>(&'a self, texts: &'a [String], purpose: Purpose) -> BoxFuture<'a, Result<Vec<Vec<f32>>, EmbedError>> {
        let prefix = match purpose {
            Purpose::Query => &self.query_prefix,
            Purpose::Passage => &self.passage_prefix,
        };
        async move {
            let texts: Vec<String> = texts.iter().map(|text| format!("{prefix}{text}")).collect();
            let failed = |reason: String| EmbedError::Inference { reason };
            let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|error| failed(error.to_string()))?;
            let engine = Arc::clone(&self.engine);
            tokio::task::spawn_blocking(move || {
                // The slot goes with the work: a caller that gives up does not free a thread that is still busy.
                let _slot = slot;
                engine.embed(&texts)
            })
            .await
            .map_err(|error| failed(error.to_string()))?
        }
        .boxed()
    }
}
