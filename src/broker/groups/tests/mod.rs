mod declared;
mod listing;
mod positions;
mod table;
