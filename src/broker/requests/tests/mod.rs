mod crash;
mod exchange;
mod machine;
