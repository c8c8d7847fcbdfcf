//! Training: packing, losses, optimiser, schedule, resumable state, and the loops: SFT and distillation, GRPO.
//!
//! Losses are sums; whoever owns the batch divides once, by the global count. Which problems are asked and where files live is decided by
//! the stages above; this floor gets examples or problems, and a place for its state.

pub mod advantage;
mod finite;
mod groups;
mod grpo;
mod kd;
mod learner;
pub mod memory;
mod mixture;
pub mod objective;
mod optimizer;
mod packing;
mod schedule;
mod sft;
mod state;

pub use finite::{Broken, NotFinite};
pub use grpo::{AskOpinions, Batch, Collapse, Collapsed, Grpo, GrpoSettings, Observer, OverlongPenalty, Rung, StepRecord, Window};
pub use kd::{Kd, KdSettings, Loss, Own, OwnRecord};
pub use learner::{Batching, Example, LEAST_TOKENS, Learner, Seeds, Values};
pub use mixture::{Part, epoch_rows};
pub use objective::LossType;
pub use optimizer::{AdamW, AdamWSettings, Optim};
pub use schedule::{Decay, Schedule};
pub use sft::{Best, HeldOut, Run as SftRun, Sft, SftLoss, SftObserver, SftRecord, SftSettings, sft_step};
pub use state::State;
