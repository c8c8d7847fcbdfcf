//! The language model: configuration, decoder, operations, caches, weights on disk, tokenizer and chat template.
//!
//! It knows tensors and text, and no `Problem`: what to ask and whether an answer is right is decided on other floors. All models are
//! read and written as Hugging Face folders that `transformers` loads unchanged.

mod config;
mod decoder;
pub(crate) mod kernels;
mod lora;
pub(crate) mod ops;
pub mod text;
mod weights;

pub use config::{Architecture, Config, RopeScaling, Shape};
pub use decoder::{Against, Decoder, NewToken, Packed, PagedCache, Parameter, Piece, TokenStats};
pub(crate) use decoder::{Checkpoints, MLP_ROWS};
pub use kernels::Divergence;
pub(crate) use kernels::{logits_held, logits_of_a_chunk};
pub use lora::{BaseModel, LoraSettings, Target, is_adapter, read_settings as adapter_settings};
pub use weights::{Precision, checkpoint_parts, load, load_adapter, load_layers, save, save_adapter, save_as, weights_hash};
