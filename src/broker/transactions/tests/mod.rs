mod crash;
mod machine;
mod time;
