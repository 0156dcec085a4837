mod crash;
mod machine;
