mod declared;
mod positions;
mod table;
