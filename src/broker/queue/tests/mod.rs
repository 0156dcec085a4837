mod crash;
mod groups;
mod machine;
mod power;
