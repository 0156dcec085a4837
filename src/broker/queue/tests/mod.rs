mod crash;
mod groups;
mod machine;
