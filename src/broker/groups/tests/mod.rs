mod declared;
mod definition;
mod listing;
mod positions;
mod table;
