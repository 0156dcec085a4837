mod clock;
mod crash;
mod groups;
mod loops;
mod machine;
mod power;
mod unreadable;
mod weights;
