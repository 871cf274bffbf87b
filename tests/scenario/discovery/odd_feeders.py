"""Feeders in styles far from the test feeders that circulate: each a master and what lies beside it, made up.

No line of theirs is from a model that circulates; names, levels and numbers are invented.
"""

from __future__ import annotations

from pathlib import Path

# One phase and its neutral, both wires modelled, the neutral grounded at poles; centre-tapped services; the rest of a
# farm behind two of them. Conductors 1 and 4, never 2 or 3.
RURAL = """
Clear
New Circuit.Rural bus1=Src.1.4 phases=1 basekv=7.2 pu=1.03 R1=0.2 X1=1.5 R0=0.2 X0=1.5
New Reactor.gsrc bus1=Src.4 bus2=Src.0 phases=1 R=5 X=0.01
New Wiredata.ACSR4 Runits=mi Rac=2.55 Rdc=2.5 GMRunits=ft GMRac=0.00452 Radunits=in Diam=0.257 normamps=140
New LineGeometry.pole nconds=2 nphases=2 reduce=no
~ cond=1 wire=ACSR4 x=0 h=30 units=ft
~ cond=2 wire=ACSR4 x=0 h=25 units=ft
New Line.span1 phases=2 bus1=Src.1.4 bus2=P1.1.4 geometry=pole length=2 units=mi
New Line.span2 phases=2 bus1=P1.1.4 bus2=P2.1.4 geometry=pole length=1.5 units=mi
New Line.span3 phases=2 bus1=P2.1.4 bus2=P3.1.4 geometry=pole length=8000 units=ft
New Reactor.g1 bus1=P1.4 phases=1 R=25 X=0
New Reactor.g2 bus1=P2.4 phases=1 R=25 X=0
New Reactor.g3 bus1=P3.4 phases=1 R=25 X=0
New Transformer.vr phases=1 windings=2 buses=(P2.1.4 P2r.1.4) kvs=(7.2 7.2) kvas=(200 200) xhl=0.5 %loadloss=0.1
New Line.neutral phases=1 bus1=P2.4 bus2=P2r.4 r1=.001 x1=.001 c1=0 length=1
New RegControl.vr transformer=vr winding=2 vreg=122 band=2 ptratio=60
New Line.span4 phases=2 bus1=P2r.1.4 bus2=P4.1.4 geometry=pole length=1 units=mi
New Transformer.farm phases=1 windings=3 buses=(P3.1.4 F.1.4 F.4.2) kvs=(7.2 .12 .12) kvas=(25 25 25)
~ xhl=2 xht=2 xlt=1.3
New Reactor.gf bus1=F.4 phases=1 R=10 X=0
New Transformer.mill phases=1 windings=2 buses=(P4.1.4 M.1.4) kvs=(7.2 .24) kvas=(50 50) xhl=2
New Reactor.gm bus1=M.4 phases=1 R=10 X=0
New Load.lights bus1=F.1.4 phases=1 kv=.12 kw=4 pf=.95
New Load.dryer bus1=F.2.4 phases=1 kv=.12 kw=3 pf=1
New Load.range bus1=F.1.2 phases=1 kv=.24 kw=6 pf=1
New Load.saw bus1=M.1.4 phases=1 kv=.24 kw=22 pf=.85
New Capacitor.pfc bus1=P4.1 bus2=P4.4 phases=1 kv=7.2 kvar=15
New PVSystem.barn bus1=F.1.2 phases=1 kv=.24 kva=8 pmpp=7.5
Set VoltageBases=[12.47 .208 (.24 3 sqrt *)]
CalcVoltageBases
"""

# Three wires, no ground anywhere behind the substation; open-delta regulators, loads between phases.
DELTA = """
clear
new circuit.Delta basekv=69 pu=1.0 mvasc3=900 mvasc1=700
new transformer.sub phases=3 windings=2 xhl=8
~ wdg=1 bus=sourcebus conn=delta kv=69 kva=5000 %r=.3
~ wdg=2 bus=d0 conn=delta kv=4.8 kva=5000 %r=.3
new reactor.ground bus1=d0 phases=3 conn=wye r=50000 x=0
new transformer.rab phases=1 windings=2 buses=(d0.1.2 d1.1.2) conns=(delta delta) kvs=(4.8 4.8) kvas=(2000 2000) xhl=1
new transformer.rcb like=rab buses=(d0.3.2, d1.3.2)
new line.jumper phases=1 bus1=d0.2 bus2=d1.2 r0=1e-3 r1=1e-3 x0=0 x1=0 c0=0 c1=0
new regcontrol.rab transformer=rab winding=2 vreg=120 band=2 ptratio=40
new regcontrol.rcb transformer=rcb winding=2 vreg=120 band=2 ptratio=40
new linecode.w3 nphases=3 basefreq=60 units=kft
~ rmatrix=[.0554 | .0129 .0564 | .0129 .0125 .0554]
~ xmatrix=[.1096 | .0486 .1076 | .0450 .0486 .1096] cmatrix=[30|0 30|0 0 30] normamps=350
new line.a phases=3 bus1=d1 bus2=d2 linecode=w3 length=3
new line.b phases=3 bus1=d2 bus2=d3 linecode=w3 length=2.5
new line.c phases=3 bus1=d3.3.1.2 bus2=d4.3.1.2 linecode=w3 length=1
new load.one bus1=d2 conn=delta kv=4.8 kw=600 kvar=200
new load.ab bus1=d3.1.2 phases=1 conn=delta kv=4.8 kw=120 kvar=60
new load.ca bus1=d4.3.1 phases=1 conn=ll kv=4.8 kw=80 kvar=40 model=5
new load.bc bus1=d4.2.3 phases=1 conn=delta kv=4.8 kw=90 kvar=40 model=2
new capacitor.c3 bus1=d3 conn=delta kv=4.8 kvar=150
new generator.dg bus1=d4 conn=delta kv=4.8 kw=200 kva=250 pf=.98 model=1
set voltagebases=[69 4.8]
calcv
"""

# 50 Hz, four wires, neutral as node 4, services of one phase; the controls of the model are its own; shapes from files
# of every kind.
EUROPE = """
Clear
Set DefaultBaseFrequency=50
New Circuit.LV bus1=MV basekv=11 pu=1.02 basefreq=50 isc3=3000 isc1=2500 angle=30
Redirect Data/Codes.txt
New Transformer.TR1 phases=3 windings=2 buses=(MV LV0.1.2.3.4) conns=(delta wye) kvs=(11 0.416) kvas=(500 500)
~ xhl=4 %rs=(0.5 0.5) sub=y
New Reactor.earth phases=1 bus1=LV0.4 bus2=LV0.0 R=1 X=0
New XYCurve.vv npts=4 xarray=[0.5 0.95 1.0 1.1] yarray=[1.0 1.0 0 -1.0]
New XYCurve.mppt npts=4 xarray=[0 25 75 100] yarray=[1.2 1.0 0.8 0.6]
New XYCurve.eff npts=4 xarray=[.1 .2 .4 1] yarray=[.86 .9 .93 .97]
New LoadShape.halfhours npts=48 minterval=30 csvfile=Data/half.csv useactual=no
New LoadShape.hours npts=24 interval=1 mult=(file=Data/hourly.csv) qmult=(file=Data/hourly.csv)
New LoadShape.uneven npts=4 interval=0 hour=[0 6 18 24] mult=[.3 .8 1 .3]
New LoadShape.seconds npts=1440 sinterval=60 mult=(file=Data/minute.csv) action=normalize
New Loadshape.sun npts=24 interval=1 mult=[0 0 0 0 0 0 .1 .2 .3 .5 .8 .9 1 1 .99 .9 .7 .4 .1 0 0 0 0 0]
New Line.m1 phases=4 bus1=LV0.1.2.3.4 bus2=J1.1.2.3.4 linecode=4c_185 length=120 units=m
New Line.m2 phases=4 bus1=J1.1.2.3.4 bus2=J2.1.2.3.4 linecode=4c_185 length=90 units=m
New Line.m3 phases=4 bus1=J2.1.2.3.4 bus2=J3.1.2.3.4 linecode=4c_185 length=60 units=m
New Line.s1 phases=2 bus1=J1.1.4 bus2=H1.1.4 linecode=2c_16 length=12 units=m
New Line.s2 phases=2 bus1=J2.2.4 bus2=H2.2.4 linecode=2c_16 length=9 units=m
New Line.s3 phases=2 bus1=J3.3.4 bus2=H3.3.4 linecode=2c_16 length=25 units=m
New Reactor.pme phases=1 bus1=J3.4 R=10 X=0
New Load.H1 phases=1 bus1=H1.1.4 kv=0.24 kw=3.2 pf=.97 daily=halfhours status=fixed
New Load.H2 phases=1 bus1=H2.2.4 kv=0.24 kw=4.1 pf=.97 daily=hours status=exempt model=8 zipv=[.2 .3 .5 .2 .3 .5 .7]
New Load.H3 phases=1 bus1=H3.3.4 kv=0.24 kw=2.7 pf=.95 yearly=uneven model=4 cvrwatts=.8 cvrvars=2
New Load.shop phases=3 bus1=J2.1.2.3.4 kv=0.416 kw=18 kvar=5 duty=seconds daily=seconds
New Load.pump phases=3 bus1=J3 conn=delta kv=0.416 kw=8 pf=.85 daily=hours
New PVSystem.H1 phases=1 bus1=H1.1.4 kv=0.24 kva=4 pmpp=4.2 irradiance=.9 temperature=25 daily=sun effcurve=eff
~ p-tcurve=mppt %cutin=.1 %cutout=.1
New PVSystem.shop phases=3 bus1=J2.1.2.3.4 kv=0.416 kva=12 pmpp=11 daily=sun
New Storage.H2 phases=1 bus1=H2.2.4 kv=0.24 kwrated=3 kwhrated=9.6 %stored=50 %reserve=10 dispmode=external
New Storage.street phases=3 bus1=J3.1.2.3.4 kv=0.416 kwrated=15 kwhrated=40 kva=15
New InvControl.roofs derlist=[PVSystem.H1] mode=voltvar vvc_curve1=vv
New StorageController.sc element=Transformer.TR1 terminal=1 modedischarge=peakshave modecharge=time kwtarget=30
~ elementlist=[street] timechargetrigger=2
Set VoltageBases=[11 0.416]
CalcVoltageBases
Set mode=daily number=24
Solve
"""
EUROPE_DATA = {
    "Data/Codes.txt": """
New LineCode.4c_185 nphases=4 units=km basefreq=50 normamps=320
~ rmatrix=[.164 | 0 .164 | 0 0 .164 | 0 0 0 .164]
~ xmatrix=[.68 | .61 .68 | .59 .61 .68 | .61 .59 .61 .68]
~ cmatrix=[0 | 0 0 | 0 0 0 | 0 0 0 0]
New LineCode.2c_16 nphases=2 units=km basefreq=50 normamps=90
~ rmatrix=(1.15 | 0 1.15) xmatrix=(.7 | .62 .7) cmatrix=(0 | 0 0)
""",
    "Data/half.csv": "\n".join(f"{0.4 + 0.5 * (hour % 48 in range(14, 40)):g}" for hour in range(48)) + "\n",
    "Data/hourly.csv": "\r\n".join(f"{0.3 + 0.02 * hour:g}" for hour in range(24)) + "\r\n",
    "Data/minute.csv": "".join(f"{0.5 + (minute % 60) / 200:g}\n" for minute in range(1440)),
}

# Two substations and a loop between them: a network that is fed from both ends, an energised bus tie, a source with no
# angle in common, a current source.
MESHED = """
Clear
New Circuit.Mesh bus1=A basekv=13.8 pu=1.01 angle=0 mvasc3=500 mvasc1=450
New Vsource.second bus1=F basekv=13.8 pu=1.0 angle=-.5 phases=3 mvasc3=300 mvasc1=280
New Linecode.oh nphases=3 r1=.2 x1=.4 r0=.5 x0=1.2 c1=9 c0=4 units=km normamps=400
New Line.ab bus1=A bus2=B linecode=oh length=2 units=km
New Line.bc bus1=B bus2=C linecode=oh length=1 units=km
New Line.cd bus1=C bus2=D linecode=oh length=1 units=km
New Line.de bus1=D bus2=E linecode=oh length=3 units=km
New Line.ef bus1=E bus2=F linecode=oh length=2 units=km
New Line.be bus1=B bus2=E linecode=oh length=4 units=km
New Line.ce1 bus1=C bus2=E linecode=oh length=2.5 units=km
New Line.ce2 bus1=C bus2=E linecode=oh length=2.5 units=km
New Line.tie bus1=D bus2=G switch=y
New Line.tie2 bus1=G bus2=B switch=y enabled=y
Open Line.tie2 term=2
New SwtControl.tie switchedobj=Line.tie switchedterm=1 normal=c state=c lock=no
New Isource.harm bus1=E phases=3 amps=2 angle=10 frequency=60
New Load.b bus1=B kv=13.8 kw=1800 pf=.95
New Load.c bus1=C kv=13.8 kw=1200 kvar=500
New Load.d bus1=D.1.2 phases=1 kv=13.8 kw=300 kvar=50
New Load.e bus1=E kv=13.8 kw=2200 pf=.9
New Load.g bus1=G.3 phases=1 kv=7.97 kw=150 pf=-.98
New Capacitor.e bus1=E kv=13.8 kvar=600 numsteps=3 kvar=[200 200 200]
New Generator.hydro bus1=D kv=13.8 kw=900 model=3 maxkvar=500 minkvar=-400 vpu=1.0 kva=1200
New Transformer.net phases=3 windings=2 buses=(C N) conns=(delta wye) kvs=(13.8 .48) kvas=(500 500) xhl=5
New Transformer.net2 phases=3 windings=2 buses=(E N) conns=(delta wye) kvs=(13.8 .48) kvas=(500 500) xhl=5
New Load.spot bus1=N kv=.48 kw=350 kvar=120
Set VoltageBases="13.8, .48"
CalcVoltageBases
"""

# Whatever else a planning model holds: protection, faults, meters, sensors, controls of controls, spectra, geometry.
PLANNING = """
Clear
Set DefaultBaseFrequency=60
New Circuit.Planning basekv=115 bus1=HV pu=1.02 r1=.5 x1=4 r0=.4 x0=3.5
New Spectrum.mine numharm=3 harmonic=[1 5 7] %mag=[100 20 10] angle=[0 0 0]
New GrowthShape.g npts=2 year=[1 10] mult=[1.02 1.01]
New TCC_Curve.tlink npts=3 c_array=[2 10 100] t_array=[10 .5 .01]
New WireData.cond Runits=mi Rac=.306 Rdc=.3 GMRunits=ft GMRac=.0244 Radunits=in Diam=.721 normamps=530
New CNData.cn Runits=mi Rac=.41 Rdc=.4 GMRunits=ft GMRac=.0171 Radunits=in Diam=.567 normamps=260
~ k=13 DiaStrand=.0641 GmrStrand=.00208 Rstrand=14.8722 EpsR=2.3 InsLayer=.22 DiaIns=1.06 DiaCable=1.16
New TSData.ts Runits=mi Rac=.97 Rdc=.95 GMRunits=ft GMRac=.0111 Radunits=in Diam=.368 normamps=165
~ DiaShield=.88 TapeLayer=.005 TapeLap=20 EpsR=2.3 InsLayer=.22 DiaIns=.82
New LineSpacing.sp nconds=4 nphases=3 units=ft x=[-4 -1 3 0] h=[28 28 28 24]
New LineGeometry.oh nconds=4 nphases=3 reduce=y spacing=sp wires=[cond cond cond cond]
New LineGeometry.ug nconds=3 nphases=3 units=ft
~ cond=1 cncable=cn x=-.5 h=-4
~ cond=2 cncable=cn x=0 h=-4
~ cond=3 cncable=cn x=.5 h=-4
New LineGeometry.ts nconds=2 nphases=1 units=ft
~ cond=1 tscable=ts x=0 h=-4
~ cond=2 wire=cond x=.25 h=-4
New XfmrCode.pole phases=1 windings=3 kvs=[7.2 .12 .12] kvas=[50 50 50] xhl=2 xht=2 xlt=1.4 %rs=[.6 1.2 1.2]
New Transformer.sub phases=3 windings=3 xhl=9 xht=9 xlt=18
~ wdg=1 bus=HV conn=delta kv=115 kva=20000
~ wdg=2 bus=MV conn=wye kv=12.47 kva=15000
~ wdg=3 bus=AUX conn=delta kv=4.16 kva=5000
New RegControl.ltc2 transformer=sub winding=2 vreg=121 band=2 ptratio=60 delay=30
New RegControl.ltc3 transformer=sub winding=3 vreg=120 band=3 ptratio=20 delay=45 reversible=yes revvreg=120
New AutoTrans.boost phases=3 windings=2 buses=[MV MVB] conns=[wye series] kvs=[12.47 13.09] kvas=[8000 8000] xhx=3
New Line.head bus1=MV bus2=N1 geometry=oh length=5000 units=ft
New Line.head2 bus1=N1 bus2=N2 geometry=ug length=1200 units=ft
New Line.lat bus1=N2.2 bus2=L1.2 phases=1 geometry=ts length=900 units=ft
New Line.spaced bus1=N2 bus2=N3 spacing=sp wires=[cond cond cond cond] length=.8 units=mi
New Line.boosted bus1=MVB bus2=N4 geometry=oh length=1 units=mi
New Line.sym bus1=N4 bus2=N5 phases=3 r1=.1 x1=.2 b1=3 b0=1 length=2 units=mi
New Reactor.limiter bus1=N5 bus2=N6 phases=3 r=.01 x=.5
New Reactor.shunt bus1=N6 phases=3 kv=12.47 kvar=200
New Transformer.ols phases=1 xfmrcode=pole buses=[L1.2 S1.1.0 S1.0.2]
New Load.split1 bus1=S1.1 phases=1 kv=.12 kw=12 pf=.9 spectrum=mine growth=g
New Load.split2 bus1=S1.2 phases=1 kv=.12 kw=9 pf=.9
New Load.split3 bus1=S1.1.2 phases=1 kv=.24 kw=15 pf=.95
New Load.n3 bus1=N3 kv=12.47 kw=2500 pf=.92
New Load.n5 bus1=N5 kv=13.09 kw=1500 pf=.95 conn=delta
New Load.n6 bus1=N6.1 phases=1 kv=7.56 kw=300 kvar=100
New Load.aux bus1=AUX kv=4.16 kw=700 pf=.9 conn=delta
New Fuse.f1 monitoredobj=Line.lat monitoredterm=1 fusecurve=tlink ratedcurrent=40
New Recloser.r1 monitoredobj=Line.head monitoredterm=1 numfast=1 phasefast=tlink phasedelayed=tlink phasetrip=800
New Relay.rel1 monitoredobj=Line.boosted monitoredterm=1 type=current phasecurve=tlink phasetrip=900
New SwtControl.sw1 switchedobj=Line.spaced switchedterm=1 action=close delay=0
New Capacitor.c1 bus1=N3 kv=12.47 kvar=900 numsteps=3
New CapControl.cc1 element=Line.head2 terminal=1 capacitor=c1 type=kvar onsetting=500 offsetting=-200
New Capacitor.ser bus1=N4 bus2=N7 phases=3 kv=12.47 kvar=40000
New Load.n7 bus1=N7 kv=13.09 kw=200 pf=1
New Generator.g1 bus1=N3 kv=12.47 kw=500 pf=1 kva=625
New Generator.g2 bus1=N5 kv=13.09 kw=400 pf=1 kva=500
New GenDispatcher.gd element=Transformer.sub terminal=1 kwlimit=4000 kwband=100 genlist=[g1, g2]
New Fault.flt bus1=N3.1 phases=1 r=.5 enabled=no
New Fault.high bus1=N5.3 phases=1 r=100000
New EnergyMeter.em element=Line.head terminal=1
New Monitor.m1 element=Line.head terminal=1 mode=0
New Monitor.m2 element=Transformer.sub terminal=2 mode=2
New Sensor.s1 element=Line.head terminal=1 kvbase=12.47 clear=yes kws=[1000 1000 1000]
Set VoltageBases=[115 12.47 13.09 4.16 .208]
CalcVoltageBases
BusCoords XY.csv
Solve mode=snap
Show voltages ln nodes
"""
PLANNING_DATA = {"XY.csv": "HV, 0, 0\nMV, 1, 0\nN1 2 0\nN2,3,0\nN3,4,.5\nNoSuchBus, 9, 9\n"}

# Names as people type them.
NAMES = """
Clear
New "Circuit.Nord Süd 1" basekv=20 bus1="Umspannwerk Ähre" pu=1.0 mvasc3=300 mvasc1=250
New Line.1 bus1="Umspannwerk Ähre" bus2=17 r1=.3 x1=.3 r0=.6 x0=1 c1=0 c0=0 length=1 units=km normamps=250
New "Line.Straße 12.5 (alt)" bus1=17 bus2="Haus 3/4" r1=.3 x1=.3 r0=.6 x0=1 c1=0 c0=0 length=.5 units=km normamps=250
New 'Line.a b' bus1="Haus 3/4" bus2=END#1 like=1
New Line.sw-1:2 bus1=17 bus2=END#1 switch=yes
New Line.SW@Ring bus1=END#1 bus2=変電所 switch=T
New Transformer.T.1.2 phases=3 windings=2 buses=(変電所 "lv 1") conns=(delta wye) kvs=(20 .4) kvas=(630 630) xhl=4
New RegControl.T.1.2 transformer=T.1.2 winding=2 vreg=231 ptratio=1 band=6
New Capacitor.42 bus1=17 kv=20 kvar=300
New "Capacitor.Block ß" bus1=END#1 kv=20 kvar=200
New Load.1 bus1=17 kv=20 kw=500 pf=.9
New Load.01 bus1="Haus 3/4" kv=20 kw=200 pf=.9
New "Load.Bäckerei Müller & Söhne, Inh. [x]" bus1="lv 1.1" phases=1 kv=.23 kw=20 pf=.98
New Load.LOAD bus1="LV 1" kv=.4 kw=40 pf=.98
New PVSystem.Dach.Süd bus1="lv 1" kv=.4 kva=60 pmpp=55
New PVSystem.Dach_Süd bus1="lv 1" kv=.4 kva=30 pmpp=30
New Storage.ess_1 bus1="lv 1" kv=.4 kwrated=20 kwhrated=50
New Storage.ess-1 bus1=17 kv=20 kwrated=20 kwhrated=50
New Generator.grid bus1=17 kv=20 kw=100 kva=120
New Generator.zone_1 bus1=END#1 kv=20 kw=100 kva=120
Set VoltageBases=[20 .4]
CalcVoltageBases
"""

# One circuit, every way to write a line.
SYNTAX = """
/* a block
   comment */
Clear ! and a comment behind
Var @kv=(4.16 1.0 *) @half=50
// another comment
NEW Object=Circuit.Syntax BasekV=@kv, pu = 1.0 ,MVAsc3=(100 2 *) mvasc1 = {150}
new object="LineCode.lc" nphases=3 units=mi
more rmatrix=[.3465, .156, .158 | .156 .3375 .1535 | .158 .1535 .3414]
m xmatrix=[1.0179 .5017 .4236|.5017 1.0478 .3849|.4236 .3849 1.0348]
~ cmatrix=(15 -4 -3 | -4 15 -2 | -3 -2 14)
~
~ normamps=(200 2 *)  ! inline
New Line.one Bus1 = SourceBus.1.2.3  bus2=B  , linecode=lc length=[3960 5280 /]
New Line.two,bus1=B,bus2=C,linecode=lc,length=0.3
New Line.three B2 like=two
Line.three.bus1=C
Line.three.bus2=D
New Line.four D.1.3 E.1.3 phases=2 r1=.3 x1=.5 c1=0 r0=.5 x0=1 c0=0
New Transformer.t1 phases=3 windings=2 wdg=1 bus=D conn=D kv=(4.16) kva=300 wdg=2 bus=L conn=y kv=(.48) kva=300 xhl=3
New Load.a bus1=b.1.2.3 phases=3 kv=4.16 kw=@half kvar=(@half 2 /)
New Load.b 1 c.1 (4.16 3 sqrt /) 40 0.9
Load.b.phases=1
Load.b.bus1=c.2
New Load.c like=b
~ bus1=c.3 kw=30
New Load.d bus1=L kv=.48 kw=60 kvar=20 model=8 zipv=(.5 .3 .2 .5 .3 .2 .6)
New Load.e1 phases=1 bus1=e.1 kv=(4.16 3 sqrt /) kw=(3 2 ^) kvar=2
New Load.e2 phases=1 bus1=e.3 kv=(4.16 3 sqrt /) kw=10 kvar=2
Edit Load.e2 kw=12
BatchEdit Load.e.* pf=.95
Select Load.d
~ kw=55
Edit Line.two Length = .4
New Capacitor.cap bus1=D kv=4.16 kvar=(60 60)
~ numsteps=2 states=[1,0]
New Generator.g bus1=E.1.3 phases=2 kv=4.16 kw=30 kva=40
Enable Load.d
New Load.ghost bus1=B kv=4.16 kw=10
Disable Load.ghost
Set VoltageBases=(4.16, .48) LoadMult=1.1
Set NormVmaxpu=1.06 loadmodel=1
Calcvoltagebases
sEt mode=snap controlmode=static maxiter=50
SOLVE
"""

# Files in files, named as on a case-preserving disk, from folders below and back.
CHAINED = """\ufeffClear
new circuit.Chained basekv=12.47 bus1=Src
redirect sub\\Codes\\codes.DSS
REDIRECT "sub/my lines.dss"
compile sub/Loads.txt
set voltagebases=[12.47]
calcvoltagebases
"""
CHAINED_DATA = {
    "sub/Codes/codes.DSS": "New LineCode.z nphases=3 r1=.2 x1=.3 r0=.4 x0=.9 c1=0 c0=0 \nRedirect ../more.dss\n",
    "sub/more.dss": "New LineCode.z1 nphases=1 r1=.2 x1=.3 r0=.4 x0=.9 c1=0 c0=0 units=km\n",
    "sub/my lines.dss": "New Line.a Src b linecode=z length=2\nNew Line.b b.2 c.2 phases=1 linecode=z1 length=1\n",
    "sub/Loads.txt": "New Load.x bus1=b kv=12.47 kw=500\nNew Load.y bus1=c.2 phases=1 kv=7.2 kw=90\n"
    "New Capacitor.q bus1=b kv=12.47 kvar=200\nRedirect Deep/regs.dss\n",
    "sub/Deep/regs.dss": "New Transformer.r phases=1 windings=2 buses=(c.2 d.2) kvs=(7.2 7.2) kvas=(500 500) xhl=1\n"
    "New RegControl.r transformer=r winding=2 vreg=122 band=2 ptratio=60\n"
    "New Load.z bus1=d.2 phases=1 kv=7.2 kw=60\n",
}

# Two circuits on one tower (six wires to a bus), a motor, and loads between their phases.
SIX_WIRES = """
Clear
New Circuit.Six bus1=S.1.2.3 basekv=13.2 pu=1.0
New Line.link bus1=S.1.2.3 bus2=T.4.5.6 r1=.01 x1=.02 r0=.01 x0=.02 c1=0 c0=0 length=1
New Line.link2 bus1=S.1.2.3 bus2=T.1.2.3 r1=.01 x1=.02 r0=.01 x0=.02 c1=0 c0=0 length=1
New LineCode.six nphases=6 units=km normamps=300
~ rmatrix=[.3|.1 .3|.1 .1 .3|.05 .05 .05 .3|.05 .05 .05 .1 .3|.05 .05 .05 .1 .1 .3]
~ xmatrix=[.8|.4 .8|.4 .4 .8|.3 .3 .3 .8|.3 .3 .3 .4 .8|.3 .3 .3 .4 .4 .8]
~ cmatrix=[9|0 9|0 0 9|0 0 0 9|0 0 0 0 9|0 0 0 0 0 9]
New Line.tower phases=6 bus1=T.1.2.3.4.5.6 bus2=U.1.2.3.4.5.6 linecode=six length=4 units=km
New Line.tower2 phases=6 bus1=U.1.2.3.4.5.6 bus2=V.1.2.3.11.12.13 linecode=six length=3 units=km
New Load.a bus1=U.1.2.3 kv=13.2 kw=900 pf=.9
New Load.b bus1=U.4.5.6 kv=13.2 kw=600 pf=.9
New Load.c bus1=V.11 phases=1 kv=7.62 kw=150 pf=.95
New Load.across bus1=U.1.5 phases=1 kv=13.2 kw=50 pf=1
New Capacitor.c bus1=V.11.12.13 kv=13.2 kvar=300
New Capacitor.ung bus1=V.1.2.3 bus2=V.7.7.7 phases=3 kv=13.2 kvar=300
New Transformer.mt phases=3 windings=2 buses=(V.1.2.3 MTR) conns=(delta wye) kvs=(13.2 .48) kvas=(750 750) xhl=5
New IndMach012.motor bus1=MTR kv=.48 kw=200 kva=300 conn=delta h=1 d=1 purs=.01 puxs=.1 purr=.02
~ puxr=.1 puxm=3.5 slip=.01 slipoption=variable
New Generator.g bus1=V.1.2.3 kv=13.2 kw=300 kva=400 pf=1
New Storage.s bus1=V.11.12.13 kv=13.2 kwrated=100 kwhrated=400
Set VoltageBases=[13.2 .48]
CalcVoltageBases
"""

# A railway's single phase at 16.7 Hz: one node to a bus.
TRACTION = """
Clear
Set DefaultBaseFrequency=16.7
New Circuit.rail bus1=ss.1 phases=1 basekv=15 pu=1.06 r1=.1 x1=.4 r0=.1 x0=.4
New Line.w1 phases=1 bus1=ss.1 bus2=km10.1 r1=.1 x1=.12 c1=0 length=10 units=km normamps=600
New Line.w2 phases=1 bus1=km10.1 bus2=km20.1 r1=.1 x1=.12 c1=0 length=10 units=km normamps=600
New Line.w3 phases=1 bus1=km20.1 bus2=km25.1 r1=.1 x1=.12 c1=0 length=5 units=km normamps=600
New Load.train1 phases=1 bus1=km10.1 kv=15 kw=1500 pf=.98
New Load.train2 phases=1 bus1=km25.1 kv=15 kw=900 pf=.98
New Load.braking phases=1 bus1=km20.1 kv=15 kw=-400 pf=1
New Storage.wayside phases=1 bus1=km20.1 kv=15 kwrated=500 kwhrated=300
New Capacitor.comp phases=1 bus1=km25.1 kv=15 kvar=300
Set VoltageBases=[(15 3 sqrt *)]
CalcVoltageBases
"""

TWO_LINES = """
New Line.l1 bus1=sourcebus bus2=a r1=.2 x1=.4 r0=.5 x0=1.2 c1=0 c0=0 length={km} units=km normamps=300
New Line.l2 bus1=a bus2=b r1=.2 x1=.4 r0=.5 x0=1.2 c1=0 c0=0 length={km} units=km normamps=300
"""

# Loads given in every way but kW and kvar, allocated, without power, and feeding.
ALLOCATED = f"""
Clear
New Circuit.Alloc basekv=12.47 pu=1.02
{TWO_LINES.format(km=1)}
New Transformer.t phases=3 buses=[b c] conns=[wye wye] kvs=[12.47 .48] kvas=[300 300] xhl=4
New Load.x1 bus1=a kv=12.47 xfkva=500 allocationfactor=.4 pf=.9
New Load.x2 bus1=b.1 phases=1 kv=7.2 xfkva=75 pf=.92
New Load.kwh bus1=b.2 phases=1 kv=7.2 kwh=4000 kwhdays=30 cfactor=4 pf=.95
New Load.zero bus1=b kv=12.47 kw=0 kvar=0
New Load.zerop bus1=b.3 phases=1 kv=7.2 kw=0 kvar=20
New Load.back bus1=c kv=.48 kw=-40 pf=1
New Load.lead bus1=c kv=.48 kw=80 pf=-.97
New Load.motor bus1=c kv=.48 kw=90 pf=.85 %seriesrl=100 puxharm=.2 model=1 vminpu=.85 vmaxpu=1.15
New Load.kva bus1=c.1 phases=1 kv=.277 kva=30 pf=.9
New Load.z bus1=c kv=.48 kw=10 pf=.9 model=2 conn=delta
New Load.cvr bus1=c kv=.48 kw=10 pf=.9 model=4 cvrwatts=.7 cvrvars=3
New Load.rect bus1=c kv=.48 kw=10 pf=.9 model=3
New Load.twelve bus1=c kv=.48 kw=12 model=6 pf=1
New Load.fixq bus1=c kv=.48 kw=8 kvar=3 model=7
New EnergyMeter.m element=Line.l1 terminal=1 peakcurrent=[30 30 30]
New Capacitor.c bus1=b kv=12.47 kvar=300
New CapControl.c element=Line.l2 capacitor=c type=voltage ptratio=60 onsetting=119 offsetting=124
Set VoltageBases=[12.47 .48]
CalcVoltageBases
Set AllocationFactors=.5
AllocateLoads
"""

# Power electronics and machines that the engine has besides: flow controllers, exponential control, no regulators.
ELECTRONIC = f"""
Clear
New Circuit.electronic basekv=12.47 pu=1.03
{TWO_LINES.format(km=2)}
New Line.l3 bus1=b.1 bus2=u.1 phases=1 r1=.2 x1=.4 c1=0 length=1 units=km normamps=300
New UPFC.u bus1=u.1 bus2=w.1 phases=1 refkv=7.2 xs=.7540 tol1=.02 mode=1 element=Line.l3
New Load.w bus1=w.1 phases=1 kv=7.2 kw=80 pf=.9
New Load.a bus1=a kv=12.47 kw=700 pf=.95
New Load.b bus1=b kv=12.47 kw=500 pf=.95
New PVSystem.p1 bus1=b kv=12.47 kva=400 pmpp=380 wattpriority=yes
New ExpControl.e pvsystemlist=[p1] vreg=1.0 slope=40 vregtau=300
New PVSystem.p0 bus1=a kv=12.47 kva=0 pmpp=0
New Storage.empty bus1=a kv=12.47 kwrated=0 kwhrated=0
New Storage.idle bus1=a kv=12.47 kwrated=50 kwhrated=100 %stored=5 %reserve=20 state=charging
New Generator.sync bus1=a kv=12.47 kw=100 kvar=30 model=4 kva=120
New Generator.off bus1=a kv=12.47 kw=0
New Generator.neg bus1=b kv=12.47 kw=-50
Set VoltageBases=[12.47]
CalcVoltageBases
"""

# The least that is a feeder: a source and a load at the same bus.
LEAST = """
New Circuit.least basekv=.4 bus1=x
New Load.all bus1=x kv=.4 kw=10
Set VoltageBases=[.4]
CalcVoltageBases
"""

FEEDERS: dict[str, tuple[str, dict[str, str]]] = {
    "rural": (RURAL, {}),
    "delta": (DELTA, {}),
    "europe": (EUROPE, EUROPE_DATA),
    "meshed": (MESHED, {}),
    "planning": (PLANNING, PLANNING_DATA),
    "names": (NAMES, {}),
    "syntax": (SYNTAX, {}),
    "chained": (CHAINED, CHAINED_DATA),
    "six_wires": (SIX_WIRES, {}),
    "traction": (TRACTION, {}),
    "allocated": (ALLOCATED, {}),
    "electronic": (ELECTRONIC, {}),
    "least": (LEAST, {}),
}


def write_feeder(name: str, folder: Path) -> Path:
    """Write a feeder and what lies beside it, and give its master."""
    text, beside = FEEDERS[name]
    for path, content in {"Master.dss": text, **beside}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content.encode())
    return folder / "Master.dss"
