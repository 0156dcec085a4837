mod crash;
mod exchange;
mod machine;
mod portion;
