-- Run once, when the server's volume is new. The warehouse itself is made by POSTGRES_DB.
create database warehouse_dagster;
