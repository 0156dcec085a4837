mod groups;
mod machine;
