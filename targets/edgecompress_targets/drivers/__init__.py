"""How devices are reached: one driver a way, all behind `driver.Driver`; `table.DRIVERS` lists them."""
