"""Drivers: one for each way to reach devices, all behind `driver.Driver`; `driver_table.DRIVERS` lists them."""
