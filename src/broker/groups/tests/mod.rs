mod definition;
mod positions;
mod table;
