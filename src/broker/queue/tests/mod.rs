mod clock;
mod crash;
mod groups;
mod machine;
mod power;
mod unreadable;
mod weights;
