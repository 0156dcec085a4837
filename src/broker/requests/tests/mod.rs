mod exchange;
mod machine;
