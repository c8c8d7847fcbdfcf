//! The program as a person meets it: the real binary in a temporary folder, what it prints and how it ends.
//!
//! What the stages compute is tested elsewhere; here it is messages, exit codes, and that nothing is lost or done twice.

mod damage;
mod distillation;
mod doctor;
mod environment;
mod filters;
mod fixture;
mod kept;
mod look;
mod lora;
mod phases;
mod plan;
mod real;
mod recipe_doctor;
mod recipes;
mod resume;
mod rules;
mod servers;
mod verify;
