mod positions;
mod table;
